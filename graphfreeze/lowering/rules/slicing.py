"""Slices and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.layouts import place, stored_layout
from graphfreeze.lowering.list_rows import numbered
from graphfreeze.lowering.rule import PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.sizes import Sizes
from graphfreeze.lowering.slices import Span, emit_slice
from graphfreeze.lowering.tensor import Dim, Tensor
from graphfreeze.lowering.windows import Window, find_window


@rule("Slice", inputs=(UNUSED,))
def slice_(node: Node) -> Tensor:
    """A block of the input, from `begin` on; `begin` may be computed at run time."""
    source, begin, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if begin.known is None:
        start = node.cast(node.value(begin), np.int64)
        end = node.emit("Add", start, node.shape(output))
        output.values[PLAIN] = node.emit("Slice", node.value(source), start, end)
        return output
    if source.shapes == output.shapes:
        return source
    starts = [tuple(int(known[axis]) for known in begin.known) for axis in range(source.rank)]
    spans = {axis: Span(start, output.dim(axis), 1) for axis, start in enumerate(starts)}
    layout = stored_layout(source)
    output.values[layout] = emit_slice(node, node.value(source, layout), spans, source.dims, layout)
    return output


# -- strided slices


@dataclass(frozen=True)
class _Index:
    """A strided slice, its masks applied.

    Attributes:
        spans: What is taken of each axis of the input.
        removed: Axes of the input that are indexed by a number, and so not in the output.
        made: How many axes of size 1 are new in the output before each axis of the input (and after the last).
        unknown: For axes indexed by a number that is not known, its position in `begin`.
    """

    spans: dict[int, Span]
    removed: list[int]
    made: list[int]
    unknown: dict[int, int]


def _entries(node: Node, count: int, rank: int) -> list[tuple[str, int]]:
    """What each position of begin, end and strides is for, the ellipsis spelt out."""
    ellipsis, new = int(node.attribute("ellipsis_mask", 0)), int(node.attribute("new_axis_mask", 0))
    shrink = int(node.attribute("shrink_axis_mask", 0))
    taken = sum(1 for k in range(count) if not (new | ellipsis) >> k & 1)
    entries: list[tuple[str, int]] = []
    for k in range(count):
        if ellipsis >> k & 1:
            entries += [("whole", k)] * (rank - taken)
        elif new >> k & 1:
            entries.append(("new", k))
        else:
            entries.append(("number" if shrink >> k & 1 else "range", k))
    return entries


def _parse(node: Node, bounds: Sequence[Tensor], dims: list[Dim]) -> _Index:
    """Read begin, end and strides of a strided slice of an array with these dimensions."""
    begin, end, strides = bounds
    step_numbers = strides.constant
    if step_numbers is None:
        raise CannotLower("strides that are computed at run time; constant strides are covered")
    masks = int(node.attribute("begin_mask", 0)), int(node.attribute("end_mask", 0))
    index = _Index({}, [], [0] * (len(dims) + 1), {})
    axis = 0
    for kind, k in _entries(node, len(step_numbers), len(dims)):
        if kind == "new":
            index.made[axis] += 1
            continue
        if kind == "number":
            index.removed.append(axis)
            if begin.known is None:
                index.unknown[axis] = k
            else:
                start = tuple(int(known[k]) % size for known, size in zip(begin.known, dims[axis], strict=True))
                index.spans[axis] = Span(start, (1,) * len(start), 1)
        elif kind == "range":
            masked = [bool(mask >> k & 1) for mask in masks]
            first, last = (None if m else _column(tensor, k) for m, tensor in zip(masked, (begin, end), strict=True))
            index.spans[axis] = _span(node.lowering.sizes, first, last, int(step_numbers[k]), dims[axis])
        axis += 1
    return index


def _column(tensor: Tensor, position: int) -> Dim:
    if tensor.known is None:
        raise CannotLower("a range whose bounds are computed at run time; single indices may be")
    return tuple(int(known[position]) for known in tensor.known)


def _span(sizes: Sizes, begin: Dim | None, end: Dim | None, step: int, dim: Dim) -> Span:
    starts, counts, passed = [], [], []
    for sample, size in enumerate(dim):
        taken = range(size)[slice(begin[sample] if begin else None, end[sample] if end else None, step)]
        starts.append(taken.start)
        counts.append(len(taken))
        passed.append(max((taken.stop - taken.start) * (1 if step > 0 else -1), 0))
    if abs(step) > 1 and len(set(passed)) > 1:
        sizes.divided(tuple(passed), abs(step) - 1, abs(step))
    return Span(tuple(starts), tuple(counts), step)


@rule("StridedSlice", inputs=(UNUSED,))
def strided_slice(node: Node) -> Tensor:
    """A slice with strides of either sign, single indices, new axes and an ellipsis; indices may be computed."""
    source, output = node.inputs[0], node.outputs[0]
    index = _parse(node, node.inputs[1:4], source.dims)
    if index.unknown or index.removed or any(index.made):
        value = emit_slice(node, node.value(source), index.spans, source.dims, PLAIN)
        for axis, position in sorted(index.unknown.items(), reverse=True):
            number = node.emit("Gather", node.value(node.inputs[1]), np.array(position, np.int64), axis=0)
            value = node.emit("Gather", value, number, axis=axis)
        return place(node, output, node.reshape(value, output.dims), range(output.rank))
    layout = stored_layout(source)
    output.values[layout] = emit_slice(node, node.value(source, layout), index.spans, source.dims, layout)
    return output


@rule("StridedSliceGrad", inputs=(UNUSED,))
def strided_slice_grad(node: Node) -> Tensor:
    """dy where the slice was taken from, zeros elsewhere."""
    output, dy = node.outputs[0], node.inputs[4]
    window = find_window(node.operation, node.inputs[1:4], output.dims)
    if window is not None:
        return _in_window(node, window)
    index = _parse(node, node.inputs[1:4], output.dims)
    if index.unknown:
        return _at_numbers(node, index)
    # The work is done in the layout that dy is stored in, where the slice left all axes in place.
    layout = stored_layout(dy) if not index.removed and not any(index.made) else PLAIN
    order = layout.permutation(output.rank)
    sizes = [output.dim(axis) for axis in order]
    spans = [index.spans.get(axis, Span((0,) * len(size), size, 1)) for axis, size in zip(order, sizes, strict=True)]
    dims = [span.count for span in spans]
    value = node.reshape(node.value(dy), dims) if layout is PLAIN else node.value(dy, layout)
    before, after = [], []
    for axis, (span, size) in enumerate(zip(spans, sizes, strict=True)):
        start = span.start
        if span.step < 0:
            flipped = Span(tuple(n - 1 for n in span.count), span.count, -1)
            value = emit_slice(node, value, {axis: flipped}, dims, PLAIN)
            start = tuple(s + (n - 1) * span.step for s, n in zip(start, span.count, strict=True))
        value, dims[axis] = _spread(node, value, dims, axis, abs(span.step))
        before.append(start)
        after.append(tuple(d - s - n for d, s, n in zip(size, start, dims[axis], strict=True)))
    if any(any(dim) for dim in (*before, *after)):
        value = node.emit("Pad", value, node.vector([*before, *after]))
    return place(node, output, value, order)


def _at_numbers(node: Node, index: _Index) -> Tensor:
    """dy where numbers say that are known only at run time: their axes are compared with all positions."""
    output, dy = node.outputs[0], node.inputs[4]
    if any(not span.is_whole(output.dim(axis)) for axis, span in index.spans.items()) or any(index.made):
        raise CannotLower("an index that is computed at run time beside a range; beside whole axes it is covered")
    one = node.lowering.dim(1)
    value = node.reshape(node.value(dy), [one if a in index.removed else d for a, d in enumerate(output.dims)])
    for axis, position in index.unknown.items():
        size = output.dim(axis)
        number = node.cast(node.emit("Gather", node.value(node.inputs[1]), np.array([position]), axis=0), np.int64)
        number = node.emit("Mod", number, node.vector([size]), fmod=0)
        places = numbered(node.lowering, node.lowering.dim(0), 1, size, np.dtype(np.int64))
        hit = node.emit("Equal", node.value(places), number)
        hit = node.reshape(hit, [size if a == axis else one for a in range(output.rank)])
        value = emit_where(node, hit, value, node.lowering.builder.constant(node.scalar(0)))
    output.values[PLAIN] = value
    return output


def _in_window(node: Node, window: Window) -> Tensor:
    """dy padded with zeros, as many before and behind it as run time says."""
    output, dy = node.outputs[0], node.inputs[4]
    inner = window.dims(output.dims)
    axes = node.int64(list(window.lengths))
    first = window.starts(node, node.inputs[1])
    free = [tuple(d - n for d, n in zip(output.dim(axis), inner[axis], strict=True)) for axis in window.lengths]
    pads = node.emit("Concat", first, node.emit("Sub", node.vector(free), first), axis=0)
    value = node.emit("Pad", node.value(dy), pads, None, axes)
    if window.spans:
        before = [span.start for span in window.spans.values()]
        after = [
            tuple(d - s for d, s in zip(output.dim(axis), span.stop, strict=True))
            for axis, span in window.spans.items()
        ]
        value = node.emit("Pad", value, node.vector([*before, *after]), None, node.int64(list(window.spans)))
    output.values[PLAIN] = value
    return output


def _spread(node: Node, value: ir.Value, dims: list[Dim], axis: int, step: int) -> tuple[ir.Value, Dim]:
    """Put `step - 1` zeros between the elements along an axis."""
    if step == 1:
        return value, dims[axis]
    one = (1,) * len(dims[axis])
    value = node.reshape(value, [*dims[: axis + 1], one, *dims[axis + 1 :]])
    pads = np.zeros((2, len(dims) + 1), np.int64)
    pads[1, axis + 1] = step - 1
    value = node.emit("Pad", value, pads.reshape(-1))
    spread = tuple(count * step for count in dims[axis])
    wide = [*dims[:axis], spread, *dims[axis + 1 :]]
    kept = tuple(max((count - 1) * step + 1, 0) for count in dims[axis])
    trimmed = Span((0,) * len(kept), kept, 1)
    value = emit_slice(node, node.reshape(value, wide), {axis: trimmed}, wide, PLAIN)
    return value, kept
