"""Strided slices whose place is computed at run time but whose size is known: `x[start : start + 5]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.slices import Span, emit_slice
from graphfreeze.lowering.tensor import Dim, Layout, Tensor
from graphfreeze.training.graph import Edge, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["Window", "find_window", "lower_window"]


@dataclass(frozen=True, slots=True)
class Window:
    """What a strided slice takes of an array.

    Attributes:
        spans: What it takes of the axes where that is known.
        lengths: How much it takes of the axes where the start is not known.
    """

    spans: dict[int, Span]
    lengths: dict[int, int]

    def dims(self, dims: Sequence[Dim]) -> list[Dim]:
        """The dimensions of what is taken of an array with these."""
        found = list(dims)
        for axis, span in self.spans.items():
            found[axis] = span.count
        for axis, length in self.lengths.items():
            found[axis] = (length,) * len(dims[axis])
        return found

    def starts(self, node: Node, begin: Tensor) -> ir.Value:
        """Where it starts in the axes of `lengths`: an int64 vector."""
        axes = np.array(list(self.lengths), np.int64)
        return node.cast(node.emit("Gather", node.value(begin), axes, axis=0), np.int64)


def lower_window(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The output of such a StridedSlice, or None for anything else."""
    if operation.type != "StridedSlice" or any(tensor.missing for tensor in inputs):
        return None
    source = inputs[0]
    window = find_window(operation, inputs[1:4], source.dims)
    if window is None:
        return None
    dims = window.dims(source.dims)
    samples = range(len(lowering.samples))
    output = Tensor(source.dtype, tuple(tuple(dim[sample] for dim in dims) for sample in samples))
    node = Node(lowering, operation, list(inputs), [output])
    value = emit_slice(node, node.value(source), window.spans, source.dims, Layout.PLAIN)
    starts = window.starts(node, inputs[1])
    ends = node.emit("Add", starts, np.array(list(window.lengths.values()), np.int64))
    output.values[Layout.PLAIN] = node.emit("Slice", value, starts, ends, node.int64(list(window.lengths)))
    return [output]


def find_window(operation: Operation, bounds: Sequence[Tensor], dims: Sequence[Dim]) -> Window | None:
    """The window of a StridedSlice (or its gradient) of an array with these dimensions, or None where it has none."""
    packs = [edge.producer for edge in operation.inputs[1:3]]
    masks = {name: _integer(operation, f"{name}_mask") for name in _MASKS}
    if bounds[2].constant is None or (bounds[2].constant != 1).any() or any(masks[name] for name in _MASKS[2:]):
        return None
    entries = [pack.inputs if pack is not None and pack.type == "Pack" else [] for pack in packs]
    if len(entries[0]) != len(entries[1]) or len(entries[0]) > len(dims):
        return None
    window = Window({}, {})
    for axis, pair in enumerate(zip(*entries, strict=True)):
        edges = [None if masks[name] >> axis & 1 else edge for name, edge in zip(_MASKS[:2], pair, strict=True)]
        numbers = [None if edge is None else _constant(edge) for edge in edges]
        if all(edge is None or number is not None for edge, number in zip(edges, numbers, strict=True)):
            limits = [None if number is None else int(number) for number in numbers]
            taken = [range(size)[slice(*limits)] for size in dims[axis]]
            window.spans[axis] = Span(tuple(r.start for r in taken), tuple(len(r) for r in taken), 1)
            continue
        length = None if edges[0] is None or edges[1] is None else _distance(edges[0], edges[1])
        if length is None or any(length > size for size in dims[axis]):
            return None
        window.lengths[axis] = length
    return window if window.lengths else None


_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def _integer(operation: Operation, name: str) -> int:
    value = operation.attributes.get(name)
    return 0 if value is None else int(value.i)


def _constant(edge: Edge) -> npt.NDArray[Any] | None:
    if edge.producer is None or edge.producer.type != "Const":
        return None
    array: npt.NDArray[Any] = tensor_util.MakeNdarray(edge.producer.attributes["value"].tensor)
    return array


def _distance(begin: Edge, end: Edge) -> int | None:
    """How far the end is behind the beginning, where it was made by adding a number to it."""
    if end.producer is None or end.producer.type not in ("Add", "AddV2"):
        return None
    for one, other in (end.producer.inputs, end.producer.inputs[::-1]):
        number = _constant(other)
        if one is begin and number is not None and number.ndim == 0 and number >= 0:
            return int(number)
    return None
