"""Padding with a number or with a mirror image, and its gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.layouts import in_layout, stored_layout
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.slices import Span, emit_slice
from graphfreeze.lowering.tensor import Dim, Tensor

_WITHOUT_PAD = tuple(map(np.dtype, (np.int16, np.uint16)))


@rule("Pad", "PadV2", inputs=(UNUSED,))
def pad(node: Node) -> Tensor:
    """The input with zeros, or another number, put around it."""
    source, paddings, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if paddings.known is None:
        raise CannotLower("paddings that are computed at run time; constant paddings are covered")
    layout = stored_layout(source)
    value = node.value(source, layout)
    before = [tuple(int(known[axis, 0]) for known in paddings.known) for axis in range(source.rank)]
    after = [tuple(int(known[axis, 1]) for known in paddings.known) for axis in range(source.rank)]
    pads = node.vector([*in_layout(before, layout), *in_layout(after, layout)])
    fill = [node.value(node.inputs[2])] if len(node.inputs) > 2 else []
    if node.dtype in _WITHOUT_PAD:
        wide = node.emit(
            "Pad", *(node.cast(v, np.int32) for v in (value,)), pads, *(node.cast(v, np.int32) for v in fill)
        )
        value = node.cast(wide, node.dtype)
    else:
        value = node.emit("Pad", value, pads, *fill)
    output.values[layout] = value
    return output


def _mirrored(node: Node) -> int:
    """How far from the edge the mirror image starts: 1 where the edge itself is not repeated, else 0."""
    return 1 if node.attribute("mode") == "REFLECT" else 0


def _take(node: Node, value: ir.Value, dims: list[Dim], axis: int, start: int, count: int, *, flip: bool) -> ir.Value:
    many = len(node.lowering.samples)
    span = Span((start + count - 1,) * many, (count,) * many, -1) if flip else Span((start,) * many, (count,) * many, 1)
    return emit_slice(node, value, {axis: span}, dims, PLAIN)


def _padded_axes(paddings: npt.NDArray[Any]) -> list[tuple[int, int, int]]:
    """Each axis that is padded at all, with how much there is before and after."""
    return [(axis, before, after) for axis, (before, after) in enumerate(paddings.tolist()) if before or after]


def _static(node: Node, dims: list[Dim], axis: int) -> int:
    if len(set(dims[axis])) > 1:
        followed = node.lowering.sizes.origin(dims[axis])
        raise CannotLower(f"mirror padding along an axis that follows {followed}; axes of fixed size are covered")
    return dims[axis][0]


@rule("MirrorPad", inputs=(PLAIN, KNOWN))
def mirror_pad(node: Node, value: ir.Value, paddings: npt.NDArray[Any]) -> ir.Value:
    """The input with its mirror image put around it, with or without repeating its edge."""
    offset = _mirrored(node)
    dims = node.inputs[0].dims
    for axis, before, after in _padded_axes(paddings):
        size = _static(node, dims, axis)
        parts = [value]
        if before:
            parts.insert(0, _take(node, value, dims, axis, offset, before, flip=True))
        if after:
            parts.append(_take(node, value, dims, axis, size - offset - after, after, flip=True))
        value = node.emit("Concat", *parts, axis=axis)
        dims[axis] = (size + before + after,) * len(dims[axis])
    return value


@rule("MirrorPadGrad", inputs=(PLAIN, KNOWN))
def mirror_pad_grad(node: Node, value: ir.Value, paddings: npt.NDArray[Any]) -> ir.Value:
    """The gradient folded back: what the mirror image got is added to where it came from."""
    offset = _mirrored(node)
    dims = node.inputs[0].dims
    for axis, before, after in _padded_axes(paddings):
        padded = _static(node, dims, axis)
        size = padded - before - after
        total = _take(node, value, dims, axis, before, size, flip=False)
        for count, start, at in ((before, 0, offset), (after, before + size, size - offset - after)):
            if count:
                pads = np.zeros((2, len(dims)), np.int64)
                pads[:, axis] = at, size - at - count
                part = _take(node, value, dims, axis, start, count, flip=True)
                total = node.emit("Add", total, node.emit("Pad", part, pads.reshape(-1)))
        value = total
        dims[axis] = (size,) * len(dims[axis])
    return value
