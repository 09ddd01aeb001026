"""Elements in another order along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.layouts import stored_layout
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.slices import Span, emit_slice
from graphfreeze.lowering.tensor import Dim, Tensor


@rule("ReverseV2", inputs=(UNUSED, KNOWN))
def reverse(node: Node, axes: npt.NDArray[Any]) -> Tensor:
    """The input with its elements along some axes in reverse."""
    source, output = node.inputs[0], node.outputs[0]
    layout = stored_layout(source)
    spans = {
        axis: Span(tuple(size - 1 for size in source.dim(axis)), source.dim(axis), -1)
        for axis in node.axes(axes, source.rank)
    }
    output.values[layout] = emit_slice(node, node.value(source, layout), spans, source.dims, layout)
    return output


@rule("ReverseSequence")
def reverse_sequence(node: Node, value: ir.Value, lengths: ir.Value) -> ir.Value:
    """The first elements of each sequence in reverse, as many as its length says."""
    time, batch = int(node.attribute("seq_dim")), int(node.attribute("batch_dim", 0))
    rank = node.inputs[0].rank
    order = [time, batch, *(axis for axis in range(rank) if axis not in (time, batch))]
    lengths = node.cast(lengths, np.int64)
    swapped = node.emit("ReverseSequence", node.transpose(value, order), lengths, time_axis=0, batch_axis=1)
    return node.transpose(swapped, [order.index(axis) for axis in range(rank)])


@rule("Roll", inputs=(UNUSED, KNOWN, KNOWN))
def roll(node: Node, shifts: npt.NDArray[Any], axes: npt.NDArray[Any]) -> Tensor:
    """The elements moved along axes; what leaves at one end comes back at the other."""
    source, output = node.inputs[0], node.outputs[0]
    layout = stored_layout(source)
    value = node.value(source, layout)
    many = len(node.lowering.samples)
    for shift, axis in zip(np.atleast_1d(shifts).tolist(), np.atleast_1d(axes).tolist(), strict=True):
        axis %= source.rank
        size = source.shape[axis]
        if size is None:
            value = _roll_of_open_size(node, value, source.dim(axis), shift, layout.axis(axis, source.rank))
            continue
        if not shift % size:
            continue
        cut = size - shift % size
        parts = [
            emit_slice(node, value, {axis: Span((start,) * many, (count,) * many, 1)}, source.dims, layout)
            for start, count in ((cut, size - cut), (0, cut))
        ]
        value = node.emit("Concat", *parts, axis=layout.axis(axis, source.rank))
    output.values[layout] = value
    return output


def _roll_of_open_size(node: Node, value: ir.Value, size: Dim, shift: int, axis: int) -> ir.Value:
    """The elements moved along an axis whose size only run time knows, which the shift may exceed."""
    elements = node.vector([size])
    cut = node.emit("Sub", elements, node.emit("Mod", np.array([shift], np.int64), elements))
    ends = node.emit("Slice", value, cut, elements, node.int64([axis]))
    return node.emit("Concat", ends, node.emit("Slice", value, node.int64([0]), cut, node.int64([axis])), axis=axis)


@rule("InvertPermutation")
def invert_permutation(node: Node, permutation: ir.Value) -> ir.Value:
    """The permutation that undoes another one."""
    size = node.shape(node.outputs[0])
    numbers = node.emit("Range", np.int64(0), node.emit("Squeeze", size), np.int64(1))
    return node.cast(node.emit("ScatterElements", numbers, permutation, numbers, axis=0), node.dtype)


@rule("DynamicStitch", "ParallelDynamicStitch", inputs=(UNUSED,))
def dynamic_stitch(node: Node) -> ir.Value:
    """Rows put where constant indices say; of several for one place, the last."""
    half = len(node.inputs) // 2
    positions: dict[int, int] = {}
    rows: list[ir.Value] = []
    rest = node.outputs[0].dims[1:]
    count = 0
    for indices, data in zip(node.inputs[:half], node.inputs[half:], strict=True):
        places = indices.constant
        if places is None:
            raise CannotLower("indices that are computed at run time; constant indices are covered")
        positions |= {int(place): count + row for row, place in enumerate(places.reshape(-1))}
        count += places.size
        if places.size:
            rows.append(node.reshape(node.value(data, PLAIN), [places.size, *rest]))
    if sorted(positions) != list(range(len(positions))):
        raise CannotLower("indices with gaps; indices that fill the whole output are covered")
    stacked = node.emit("Concat", *rows, axis=0) if len(rows) > 1 else rows[0]
    order = [positions[place] for place in range(len(positions))]
    return stacked if order == list(range(count)) else node.emit("Gather", stacked, node.int64(order), axis=0)
