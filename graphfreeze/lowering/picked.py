"""Sizes that data decide: how many elements a mask picks, how long a range is, what a computed number makes of a shape.

Such a size is one more that only run time knows, beside the batch and the length of sequences: it has samples of its
own, and at run time it is the size of the very array that it was first met in, or the number that gave it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.shape_numbers import Number, number_of, numbers_of
from graphfreeze.lowering.sizes import PICKED
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.training.graph import Graph, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

_ENDS = frozenset({"Rank", "Shape", "ShapeN", "Size"})
"""What follows from shapes alone, whatever the values are."""

__all__ = ["count_picked", "lower_picked", "picked_number", "picked_size", "sized"]


_SHAPES = {
    **dict.fromkeys(("BroadcastTo", "Reshape", "Tile"), (1,)),
    **dict.fromkeys(("Empty", "Fill", "StatelessRandomNormalV2", "StatelessRandomUniformV2"), (0,)),
    "StatelessTruncatedNormalV2": (0,),
    "BroadcastGradientArgs": (0, 1),
}
"""Which inputs are shapes, or how often axes are repeated."""

_PICKS: dict[str, Callable[[int], int]] = {
    **dict.fromkeys(("Range", "RaggedRange", "SparseFillEmptyRows", "Where"), lambda _: 1),
    **dict.fromkeys(("Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"), lambda _: 1),
    **dict.fromkeys(("SegmentSum", "SegmentMean", "SegmentProd", "SegmentMax", "SegmentMin"), lambda _: 1),
    **dict.fromkeys(
        (f"SparseSegment{kind}{form}" for kind in ("Sum", "Mean", "SqrtN") for form in ("", "GradV2")), lambda _: 1
    ),
    "RaggedGather": lambda inputs: inputs - 2,
    "RaggedTensorToTensor": lambda inputs: inputs - 3,
}
"""How many sizes data may decide in an operation, by its number of inputs."""

_CONVOLUTIONS = frozenset({"Conv2D", "Conv3D", "DepthwiseConv2dNative"})


def count_picked(graph: Graph) -> int:
    """How many sizes of a graph data may decide."""
    follows = {id(edge) for edge in graph.inputs}
    count, ends, sizes = 0, set[Number](), set[Number]()
    for operation in graph.operations:
        if operation.type in _ENDS or not any(id(edge) in follows for edge in operation.inputs):
            continue
        follows.update(id(edge) for edge in operation.outputs)
        if operation.type == "Range" and (number := _last(operation)) is not None:
            ends.add(number)
        elif operation.type in _PICKS:
            count += _PICKS[operation.type](len(operation.inputs))
        elif operation.type in _SHAPES:
            shapes = [operation.inputs[position] for position in _SHAPES[operation.type]]
            sizes.update(number for edge in shapes if id(edge) in follows for number in numbers_of(edge) or ())
    return count + len(ends | {number for number in sizes if id(number.edge) in follows})


def picked_size(lowering: Lowering, value: ir.Value, axis: int) -> Dim:
    """The size of this axis of an array. Where equal nodes made it twice, it is one array of one size.

    Raises:
        CannotLower: The array is in a loop or a branch.
    """
    for name, known in lowering.axes.items():
        if known == (value, axis):
            return lowering.sizes.samples[name]
    name = _new_name(lowering)
    lowering.axes[name] = (value, axis)
    return lowering.sizes.samples[name]


def picked_number(lowering: Lowering, value: ir.Value) -> Dim:
    """The size that a number gives, an int64 vector of length 1. Where equal nodes made it twice, it is one size.

    Raises:
        CannotLower: The number is in a loop or a branch.
    """
    for name, known in lowering.numbers.items():
        if known is value:
            return lowering.sizes.samples[name]
    name = _new_name(lowering)
    lowering.numbers[name] = value
    return lowering.sizes.samples[name]


def sized(*operations: str) -> Callable[[Callable[[Node], list[Tensor]]], Callable[[Node], list[Tensor]]]:
    """Declare a rule on tensors, `f(node) -> list[Tensor]`, of an operation that makes arrays of sizes data decide.

    It is called with inputs that all have a value and are not all known.
    """

    def declare(function: Callable[[Node], list[Tensor]]) -> Callable[[Node], list[Tensor]]:
        @wraps(function)
        def lower(node: Node) -> list[Tensor]:
            missing = frozenset().union(*(tensor.missing for tensor in node.inputs))
            if missing:
                return node.lowering.missing(node.operation, missing)
            return node.lowering.folding.evaluate(node.operation, node.inputs) or function(node)

        return special(*operations)(lower)

    return declare


def _new_name(lowering: Lowering) -> str:
    if lowering.builder.depth:
        raise CannotLower(
            "how large its output is depends on values, in a loop or a branch; outside of these that is covered"
        )
    taken = {*lowering.axes, *lowering.numbers}
    free = [name for name in lowering.sizes.samples if name.startswith(PICKED) and name not in taken]
    if not free:
        raise CannotLower(
            "its output's shape depends on values that are known only at run time, or on which of two sizes is larger"
        )
    return free[0]


def lower_picked(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The output of an operation that makes an array of a size that values decide, or None for anything else."""
    if any(tensor.missing for tensor in inputs):
        return None
    if operation.type == "Range":
        return [_range(lowering, operation, inputs)]
    return _sized(lowering, operation, inputs)


def _range(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> Tensor:
    output = Tensor(inputs[0].dtype, ((0,),) * len(lowering.samples))
    node = Node(lowering, operation, list(inputs), [output])
    value = node.emit("Range", *map(node.value, inputs))
    last = _last(operation)
    sizes = None if last is None else _known_samples(lowering, last)
    if sizes is None:
        sizes = picked_size(lowering, value, 0)
        name = lowering.sizes.name(sizes)
        if last is not None and name is not None:
            lowering.number_sizes[last] = name
    output.shapes = tuple((size,) for size in sizes)
    output.values[Layout.PLAIN] = value
    return output


def _last(operation: Operation) -> Number | None:
    """The whole number that a Range from 0 on in steps of 1 has as its size, or None for other ranges."""
    start, limit, delta = operation.inputs
    number = number_of(limit)
    starts_and_steps = (number_of(start).constant, number_of(delta).constant)
    return number if number.is_whole and starts_and_steps == (0, 1) else None


def _sized(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The operation again, with those elements of the shape as sizes that are computed at run time."""
    if operation.type in _CONVOLUTIONS and None in inputs[1].shape[:-2]:
        raise CannotLower(
            "the size of its filter is known only at run time; with the padding SAME, or with a filter of fixed size, "
            "it would be covered"
        )
    unknown = [position for position in _SHAPES.get(operation.type, ()) if inputs[position].known is None]
    if not unknown:
        return None
    made = list(inputs)
    for position in unknown:
        numbers = numbers_of(operation.inputs[position])
        if numbers is None:
            return None
        columns = [_known_samples(lowering, number) or _new_samples(lowering, number) for number in numbers]
        made[position] = lowering.known([np.array(row, made[position].dtype) for row in zip(*columns, strict=True)])
    return lowering.lower(operation, made)


def _known_samples(lowering: Lowering, number: Number) -> Dim | None:
    """A number at every sample: as it is known, or those of the size that it gives; None where it is new."""
    tensor = lowering.tensors[id(number.edge)]
    if tensor.known is not None:
        return tuple(int(known.reshape(-1)[number.place]) for known in tensor.known)
    name = lowering.number_sizes.get(number)
    return None if name is None else lowering.sizes.samples[name]


def _new_samples(lowering: Lowering, number: Number) -> Dim:
    """Those of one size more, which this number gives."""
    name = _new_name(lowering)
    builder, tensor = lowering.builder, lowering.tensors[id(number.edge)]
    value = builder.emit("Reshape", lowering.value(tensor), builder.int64([-1]))
    if tensor.size > 1:
        value = builder.emit("Gather", value, builder.int64([number.place]), axis=0)
    lowering.numbers[name] = builder.cast(value, np.dtype(np.int64))
    lowering.number_sizes[number] = name
    return lowering.sizes.samples[name]
