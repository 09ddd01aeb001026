"""Max and average pooling of sequences of any length, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import batch_and_channels
from graphfreeze.lowering.open_window import OpenWindow
from graphfreeze.lowering.rule import Node

__all__ = [
    "open_average_pool",
    "open_average_pool_gradient",
    "open_max_pool",
    "open_max_pool_gradient",
    "to_first_largest",
]


def open_max_pool(window: OpenWindow, x: ir.Value) -> ir.Value:
    """The largest element of each window."""
    sizes = {"kernel_shape": list(window.kernel), "strides": list(window.strides)}
    if window.padding is None:
        return window.node.emit("MaxPool", window.pad(x, -np.inf), **sizes)
    before, after = window.padding
    return window.node.emit("MaxPool", x, pads=[*before, *after], **sizes)


def open_max_pool_gradient(window: OpenWindow, x: ir.Value, y: ir.Value, dy: ir.Value) -> ir.Value:
    """Each window's gradient for its first largest element."""
    parts = to_first_largest(window.node, window.slice_taps(x, -np.inf), y, dy)
    return window.place_taps(parts, *batch_and_channels(window.node, window.node.inputs[0]))


def to_first_largest(node: Node, taps: Sequence[ir.Value], y: ir.Value, dy: ir.Value) -> list[ir.Value]:
    """What each tap gets of the gradients dy of the largest elements y: all where it is the first that is as large."""
    zero, left, parts = node.scalar(0), dy, []
    for tap in taps[:-1]:
        is_largest = node.emit("Equal", tap, y)
        parts.append(node.emit("Where", is_largest, left, zero))
        left = node.emit("Where", is_largest, zero, left)
    return [*parts, left]


def open_average_pool(window: OpenWindow, x: ir.Value) -> ir.Value:
    """The mean of each window's elements; padding does not count."""
    node = window.node
    # onnxruntime has no float64 AveragePool on CPUs, and none that takes computed padding.
    if node.dtype != np.float64 and window.padding is not None:
        pads = [*window.padding[0], *window.padding[1]]
        sizes = {"kernel_shape": list(window.kernel), "strides": list(window.strides), "pads": pads}
        return node.emit("AveragePool", x, count_include_pad=0, **sizes)
    return node.emit("Mul", _sum(window, x), _shares(window))


def open_average_pool_gradient(window: OpenWindow, dy: ir.Value) -> ir.Value:
    """Each window's gradient in equal shares to its elements."""
    value = window.node.emit("Mul", dy, _shares(window))
    batch, channels = batch_and_channels(window.node, window.node.outputs[0])
    return window.place_taps([value] * len(window.taps), batch, channels)


def _sum(window: OpenWindow, x: ir.Value) -> ir.Value:
    return reduce(partial(window.node.emit, "Add"), window.slice_taps(x))


def _shares(window: OpenWindow) -> ir.Value:
    """One over the number of elements that each window covers: [1, 1, *output]."""
    node = window.node
    ones = node.emit("Expand", node.scalar(1), node.vector([1, 1, *window.size]))
    return node.emit("Div", node.scalar(1), _sum(window, ones))
