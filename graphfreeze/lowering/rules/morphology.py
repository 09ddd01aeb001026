"""Images dilated by an element of structure, and the gradients of the images and of the element."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Window, image_dims, place_taps, slice_taps
from graphfreeze.lowering.open_pooling import to_first_largest
from graphfreeze.lowering.rule import CHANNELS_FIRST, PLAIN, CannotLower, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("Dilation2D", inputs=(CHANNELS_FIRST, PLAIN), outputs=(CHANNELS_FIRST,))
def dilation(node: Node, x: ir.Value, element: ir.Value) -> ir.Value:
    """The largest of image plus element in each window; padding does not count."""
    return _Dilated.of(node, x, element, node.outputs[0]).largest


@rule("Dilation2DBackpropInput", inputs=(CHANNELS_FIRST, PLAIN, CHANNELS_FIRST), outputs=(CHANNELS_FIRST,))
def dilation_gradient_of_image(node: Node, x: ir.Value, element: ir.Value, dy: ir.Value) -> ir.Value:
    """Each window's gradient goes to the pixel that its largest sum came from, the first one."""
    dilated = _Dilated.of(node, x, element, node.inputs[2])
    batch, channels, _ = image_dims(node, node.inputs[0])
    parts = to_first_largest(node, dilated.sums, dilated.largest, dy)
    return place_taps(node, parts, dilated.window, batch, channels)


@rule("Dilation2DBackpropFilter", inputs=(CHANNELS_FIRST, PLAIN, CHANNELS_FIRST))
def dilation_gradient_of_element(node: Node, x: ir.Value, element: ir.Value, dy: ir.Value) -> ir.Value:
    """Each window's gradient goes to the part of the element that its largest sum came from, the first one."""
    dilated = _Dilated.of(node, x, element, node.inputs[2])
    parts = to_first_largest(node, dilated.sums, dilated.largest, dy)
    sums = [node.emit("ReduceSum", part, node.int64([0, 2, 3]), keepdims=0) for part in parts]
    return node.reshape(node.emit("Concat", *sums, axis=0), node.outputs[0].dims)


class _Dilated(NamedTuple):
    """An image plus an element, tap by tap: [batch, channels, *output].

    Attributes:
        window: How the element moves over the image.
        sums: For each tap of it.
        largest: The largest of these.
    """

    window: Window
    sums: list[ir.Value]
    largest: ir.Value

    @classmethod
    def of(cls, node: Node, x: ir.Value, element: ir.Value, output: Tensor) -> _Dilated:
        """Those of an operation whose output has this shape."""
        window = _window(node, output)
        size = node.inputs[1].dims
        columns = node.reshape(element, [len(window.taps), size[2], 1, 1])
        sums = [
            node.emit("Add", tap, node.emit("Gather", columns, np.array([index], np.int64), axis=0))
            for index, tap in enumerate(slice_taps(node, x, window, fill=-np.inf))
        ]
        return cls(window, sums, node.emit("Max", *sums) if len(sums) > 1 else sums[0])


def _window(node: Node, output: Tensor) -> Window:
    sizes = [*node.inputs[0].shape[1:3], *output.shape[1:3], *node.inputs[1].shape[:2]]
    height, width, rows, columns, *kernel = (size or 0 for size in sizes)
    if None in sizes:
        raise CannotLower("images or elements whose size only run time knows; fixed sizes are covered")
    strides, rates = (tuple(node.attribute(name)[1:3]) for name in ("strides", "rates"))
    window = Window((height, width), (rows, columns), tuple(kernel), strides, rates, (0, 0))
    if node.attribute("padding") == "VALID":
        return window
    return replace(window, before=tuple(max(total, 0) // 2 for total in window.after))
