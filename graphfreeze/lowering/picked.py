"""Sizes that data decide: how many elements a mask picks, how long a range is that a computed number ends.

Such a size is one more that only run time knows, beside the batch and the length of sequences: it has samples of its
own, and at run time it is the size of the very array that it was first met in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.sizes import PICKED
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.training.graph import Graph, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

_ENDS = frozenset({"Rank", "Shape", "ShapeN", "Size"})
"""What follows from shapes alone, whatever the values are."""

__all__ = ["count_picked", "lower_range", "picked_size"]


def count_picked(graph: Graph) -> int:
    """How many sizes of a graph data may decide."""
    follows = {id(edge) for edge in graph.inputs}
    count = 0
    for operation in graph.operations:
        if operation.type in _ENDS or not any(id(edge) in follows for edge in operation.inputs):
            continue
        follows.update(id(edge) for edge in operation.outputs)
        count += operation.type in ("Where", "Range")
    return count


def picked_size(lowering: Lowering, value: ir.Value, axis: int) -> Dim:
    """The size of this axis of an array. Where equal nodes made it twice, it is one array of one size.

    Raises:
        CannotLower: The array is in a loop or a branch.
    """
    if lowering.builder.depth:
        raise CannotLower(
            "how large its output is depends on values, in a loop or a branch; outside of these that is covered"
        )
    for name, known in lowering.axes.items():
        if known == (value, axis):
            return lowering.sizes.samples[name]
    names = [n for n in lowering.sizes.samples if n.startswith(PICKED) and n not in lowering.axes]
    if not names:
        raise CannotLower("how long it is depends on which of two sizes is larger, or on what divides one")
    name = names[0]
    lowering.axes[name] = (value, axis)
    return lowering.sizes.samples[name]


def lower_range(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The output of a Range of numbers of which not all are known, or None for anything else."""
    if operation.type != "Range" or any(tensor.missing for tensor in inputs):
        return None
    output = Tensor(inputs[0].dtype, ((0,),) * len(lowering.samples))
    node = Node(lowering, operation, list(inputs), [output])
    value = node.emit("Range", *map(node.value, inputs))
    output.shapes = tuple((size,) for size in picked_size(lowering, value, 0))
    output.values[Layout.PLAIN] = value
    return [output]
