"""Help for rules that keep a value in the layout it is stored in, instead of asking for TensorFlow's order."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

__all__ = ["in_layout", "long_axes", "place", "stored_layout"]


def stored_layout(tensor: Tensor) -> Layout:
    """The layout in which the tensor costs nothing: PLAIN where it has that or has no value yet."""
    if Layout.PLAIN in tensor.values or not tensor.values:
        return Layout.PLAIN
    return next(iter(tensor.values))


def in_layout(columns: Sequence[Dim], layout: Layout) -> list[Dim]:
    """Per-axis numbers in TensorFlow's order, reordered for a layout."""
    return [columns[axis] for axis in layout.permutation(len(columns))]


def long_axes(tensor: Tensor, layout: Layout = Layout.PLAIN) -> list[int]:
    """TensorFlow's numbers of the axes that are not of size 1, in the order that the layout has them."""
    return [axis for axis in layout.permutation(tensor.rank) if set(tensor.dim(axis)) != {1}]


def place(node: Node, output: Tensor, value: ir.Value, order: Sequence[int]) -> Tensor:
    """Give an output a value whose axes stand in another order, at no cost where that order is a known layout.

    Args:
        node: The operation that is being lowered.
        output: The output that gets the value.
        value: An ONNX value that holds the output.
        order: For each axis of `value`, the output's axis in TensorFlow's order.
    """
    order = list(order)
    candidates = list(Layout) if output.rank > 2 else [Layout.PLAIN]
    for layout in candidates:
        if layout.permutation(output.rank) == order:
            output.values[layout] = value
            return output
    for layout in candidates:
        if long_axes(output, layout) == [axis for axis in order if set(output.dim(axis)) != {1}]:
            output.values[layout] = node.reshape(value, in_layout(output.dims, layout))
            return output
    output.values[Layout.PLAIN] = node.transpose(value, [order.index(axis) for axis in range(output.rank)])
    return output
