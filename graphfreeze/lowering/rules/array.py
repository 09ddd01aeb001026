"""Arrays put together, taken apart and looked at in another shape or order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.layouts import in_layout, long_axes, place, stored_layout
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.splits import emit_split
from graphfreeze.lowering.tensor import Layout, Tensor


@rule("Reshape", "ExpandDims", "Squeeze", inputs=(UNUSED,))
def reshape(node: Node) -> Tensor:
    """The same elements in another shape; where only axes of size 1 come and go the layout is kept."""
    source, output = node.inputs[0], node.outputs[0]
    if source.shapes == output.shapes:
        return source
    layout = stored_layout(source)
    if layout is not PLAIN:
        before, after = long_axes(source), long_axes(output)
        if [source.dim(axis) for axis in before] == [output.dim(axis) for axis in after]:
            order = [before.index(axis) for axis in long_axes(source, layout)]
            for target in Layout if output.rank > 2 else (PLAIN,):
                if [after.index(axis) for axis in long_axes(output, target)] == order:
                    dims = in_layout(output.dims, target)
                    output.values[target] = node.reshape(node.value(source, layout), dims)
                    return output
    output.values[PLAIN] = node.reshape(node.value(source), output.dims)
    return output


@rule("Transpose", "ConjugateTranspose", inputs=(UNUSED, KNOWN))
def transpose(node: Node, permutation: npt.NDArray[Any]) -> Tensor:
    """The axes in another order; nothing is moved where the layout already has that order."""
    source, output = node.inputs[0], node.outputs[0]
    wanted = [int(axis) % source.rank for axis in permutation]
    layouts = list(source.values) or [PLAIN]
    orders = [[wanted.index(axis) for axis in layout.permutation(source.rank)] for layout in layouts]
    known = [target.permutation(output.rank) for target in Layout if output.rank > 2]
    best = next((k for k, order in enumerate(orders) if order in known), 0)
    return place(node, output, node.value(source, layouts[best]), orders[best])


@rule("ConcatV2", inputs=(UNUSED,))
def concat(node: Node) -> Tensor:
    """The inputs one after the other along an axis."""
    return _concat(node, node.inputs[:-1], node.inputs[-1])


@rule("Concat", inputs=(UNUSED,))
def concat_old(node: Node) -> Tensor:
    """The inputs one after the other along an axis."""
    return _concat(node, node.inputs[1:], node.inputs[0])


def _concat(node: Node, parts: list[Tensor], axis: Tensor) -> Tensor:
    output = node.outputs[0]
    if axis.constant is None:
        raise CannotLower("an axis that is computed at run time; a constant axis is covered")
    at = int(axis.constant) % output.rank
    parts = [part for part in parts if set(part.dim(at)) != {0}] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    layout = node.lowering.common_layout(parts, output.rank)
    values = [node.value(part, layout) for part in parts]
    output.values[layout] = node.emit("Concat", *values, axis=layout.axis(at, output.rank))
    return output


@rule("Pack")
def pack(node: Node, *values: ir.Value) -> ir.Value:
    """The inputs stacked along a new axis."""
    output = node.outputs[0]
    axis = int(node.attribute("axis", 0)) % output.rank
    dims = [*node.inputs[0].dims]
    dims.insert(axis, (1,) * len(node.lowering.samples))
    return node.emit("Concat", *(node.reshape(value, dims) for value in values), axis=axis)


@rule("Unpack")
def unpack(node: Node, value: ir.Value) -> list[ir.Value]:
    """The input's slices along an axis, without that axis."""
    source = node.inputs[0]
    axis = int(node.attribute("axis", 0)) % source.rank
    if len(node.outputs) == 1:
        return [node.reshape(value, node.outputs[0].dims)]
    return [node.emit("Gather", value, np.array(index, np.int64), axis=axis) for index in range(len(node.outputs))]


@rule("Split", inputs=(KNOWN, UNUSED))
def split(node: Node, axis: npt.NDArray[Any]) -> list[Tensor]:
    """Equal parts along an axis."""
    return _split(node, node.inputs[1], int(axis))


@rule("SplitV", inputs=(UNUSED, UNUSED, KNOWN))
def split_by_sizes(node: Node, axis: npt.NDArray[Any]) -> list[Tensor]:
    """Parts of given sizes along an axis."""
    return _split(node, node.inputs[0], int(axis))


def _split(node: Node, source: Tensor, axis: int) -> list[Tensor]:
    if len(node.outputs) == 1:
        return [source]
    axis %= source.rank
    layout = stored_layout(source)
    sizes = [output.dim(axis) for output in node.outputs]
    parts = emit_split(node, node.value(source, layout), sizes, layout.axis(axis, source.rank))
    for output, part in zip(node.outputs, parts, strict=True):
        output.values[layout] = part
    return node.outputs
