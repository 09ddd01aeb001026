"""Max and average pooling of images and volumes, and their gradients, without MaxPool's optional indices."""

from __future__ import annotations

import itertools
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import (
    Window,
    batch_and_channels,
    crop,
    image_dims,
    operation_window,
    place_taps,
    slice_taps,
    surround,
    times,
)
from graphfreeze.lowering.open_pooling import (
    open_average_pool,
    open_average_pool_gradient,
    open_max_pool,
    open_max_pool_gradient,
    to_first_largest,
)
from graphfreeze.lowering.open_window import OpenWindow, is_open, open_window
from graphfreeze.lowering.rule import IMAGES, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.gather import emit_scatter
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

FEW_TAPS = 4
"""Up to here max pooling's gradient visits all taps at once, beyond it axis by axis."""


@rule("MaxPool", "MaxPool3D", inputs=(IMAGES,), outputs=(IMAGES,))
def max_pool(node: Node, x: ir.Value) -> ir.Value:
    """The largest element of each window."""
    window = _window(node, node.inputs[0], node.outputs[0])
    if isinstance(window, OpenWindow):
        return open_max_pool(window, x)
    return node.emit("MaxPool", x, **_attributes(window))


@rule("MaxPoolGrad", "MaxPool3DGrad", inputs=(IMAGES,), outputs=(IMAGES,))
def max_pool_gradient(node: Node, x: ir.Value, y: ir.Value, dy: ir.Value) -> ir.Value:
    """Each window's gradient goes to its first largest element in row-major order."""
    window = _window(node, node.inputs[0], node.inputs[1])
    if isinstance(window, OpenWindow):
        return open_max_pool_gradient(window, x, y, dy)
    if (
        window.kernel == window.strides == (2, 2)
        and max(window.before + window.after) <= 0
        and node.dtype == np.float32
    ):
        return _to_first_of_four(node, window, x, y, dy)
    if prod(window.kernel) <= FEW_TAPS:
        return _to_first_largest(node, window, x, y, dy)
    # Axis by axis there are fewer taps: the largest of each row first, then the first of the rows.
    steps = [window.along(axis) for axis in range(len(window.size))]
    pooled = [x]
    for step in reversed(steps[1:]):
        taps = slice_taps(node, pooled[0], step, fill=-np.inf)
        pooled.insert(0, node.emit("Max", *taps) if len(taps) > 1 else taps[0])
    largest = y
    for step, values in zip(steps, pooled, strict=True):
        dy = _to_first_largest(node, step, values, largest, dy)
        largest = values
    return dy


def _to_first_largest(node: Node, window: Window, x: ir.Value, y: ir.Value, dy: ir.Value) -> ir.Value:
    batch, channels = batch_and_channels(node, node.inputs[0])
    parts = to_first_largest(node, slice_taps(node, x, window, fill=-np.inf), y, dy)
    return place_taps(node, parts, window, batch, channels)


def _to_first_of_four(node: Node, window: Window, x: ir.Value, y: ir.Value, dy: ir.Value) -> ir.Value:
    """The same for neighbouring windows of 2x2, without taking them apart.

    Each largest element gets a number, larger where it comes earlier; the first one's is the largest in its window.
    Channels count as images here: onnxruntime would else reorder them in blocks, to and fro, for the one MaxPool.
    """
    batch, channels = batch_and_channels(node, node.inputs[0])
    covered = [2 * count for count in window.output]
    alone: list[Dim | int] = [times(batch, channels), 1]
    x = node.reshape(crop(node, x, window.size, (0, 0), covered), [*alone, *covered])
    y, dy = (node.reshape(value, [*alone, *window.output]) for value in (y, dy))
    numbers = np.tile(np.array([[4, 3], [2, 1]], node.dtype), window.output)[None, None]
    ranks = node.emit("Mul", node.cast(node.emit("Equal", x, _doubled(node, y)), node.dtype), numbers)
    highest = node.emit("MaxPool", ranks, kernel_shape=[2, 2], strides=[2, 2])
    is_first = node.emit("Equal", ranks, _doubled(node, highest))
    gradient = node.emit("Mul", _doubled(node, dy), node.cast(is_first, node.dtype))
    gradient = node.reshape(gradient, [batch, channels, *covered])
    beyond = [size - count for size, count in zip(window.size, covered, strict=True)]
    return surround(node, gradient, batch, channels, covered, (0, 0), beyond)


def _doubled(node: Node, value: ir.Value) -> ir.Value:
    """Each element four times, side by side. onnxruntime has a fast way for these attributes."""
    nearest = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return node.emit("Resize", value, None, np.array([1, 1, 2, 2], np.float32), **nearest)


@rule("MaxPoolWithArgmax", inputs=(IMAGES,), outputs=(IMAGES, IMAGES))
def max_pool_with_argmax(node: Node, x: ir.Value) -> list[ir.Value]:
    """The largest element of each window, and where the first such one is in the image or in the batch of images."""
    batch, channels, (_, width) = image_dims(node, node.inputs[0])
    window = _window(node, node.inputs[0], node.outputs[0])
    assert isinstance(window, Window), "all sizes are static"
    y = node.emit("MaxPool", x, **_attributes(window))
    found: ir.Value | npt.NDArray[np.generic] = np.zeros((1, 1, 1, 1), np.int64)
    for (down, across), tap in reversed(list(zip(window.taps, slice_taps(node, x, window, fill=-np.inf), strict=True))):
        rows, columns = (
            np.arange(count) * stride + offset - before
            for count, stride, offset, before in zip(
                window.output, window.strides, (down, across), window.before, strict=True
            )
        )
        places = rows[:, None] * width + columns
        found = node.emit("Where", node.emit("Equal", tap, y), places[None, None].astype(np.int64), found)
    index = node.emit("Mul", found, np.full((1, 1, 1, 1), channels, np.int64))
    index = node.emit("Add", index, np.arange(channels, dtype=np.int64).reshape(1, -1, 1, 1))
    if node.attribute("include_batch_in_index", False):
        index = node.emit("Add", index, _first_of_images(node, node.inputs[0], batch))
    return [y, index if node.outputs[1].dtype == np.int64 else node.cast(index, node.outputs[1].dtype)]


def _first_of_images(node: Node, images: Tensor, batch: Dim) -> ir.Value:
    """The number of each image's first element in the batch: [batch, 1, 1, 1]."""
    numbers = node.emit("Range", np.int64(0), node.emit("Squeeze", node.vector([batch])), np.int64(1))
    count = np.full((1, 1, 1, 1), prod(images.shapes[0][1:]), np.int64)
    return node.emit("Mul", node.reshape(numbers, [batch, 1, 1, 1]), count)


@rule("MaxPoolGradWithArgmax", inputs=(UNUSED, PLAIN, PLAIN))
def max_pool_gradient_with_argmax(node: Node, dy: ir.Value, places: ir.Value) -> ir.Value:
    """Each window's gradient goes to where its largest element was."""
    output = node.outputs[0]
    index = node.cast(places, np.int64)
    if not node.attribute("include_batch_in_index", False):
        index = node.emit("Add", index, _first_of_images(node, output, output.dim(0)))
    base = node.emit("Expand", node.scalar(0, 1), node.vector([times(output.dim(0), prod(output.shapes[0][1:]))]))
    flat = node.emit("Reshape", dy, node.int64([-1])), node.emit("Reshape", index, node.int64([-1, 1]))
    return node.reshape(emit_scatter(node, base, flat[1], flat[0], "add"), output.dims)


@rule("AvgPool", "AvgPool3D", inputs=(IMAGES,), outputs=(IMAGES,))
def average_pool(node: Node, x: ir.Value) -> ir.Value:
    """The mean of each window's elements; padding does not count."""
    window = _window(node, node.inputs[0], node.outputs[0])
    if isinstance(window, OpenWindow):
        return open_average_pool(window, x)
    if node.dtype != np.float64:
        return node.emit("AveragePool", x, count_include_pad=0, **_attributes(window))
    # onnxruntime has no float64 AveragePool on CPUs.
    first, *others = slice_taps(node, x, window)
    for tap in others:
        first = node.emit("Add", first, tap)
    return node.emit("Mul", first, _shares(node, window))


@rule("AvgPoolGrad", "AvgPool3DGrad", inputs=(UNUSED, IMAGES), outputs=(IMAGES,))
def average_pool_gradient(node: Node, dy: ir.Value) -> ir.Value:
    """Each window's gradient in equal shares to its elements."""
    window = _window(node, node.outputs[0], node.inputs[1])
    if isinstance(window, OpenWindow):
        return open_average_pool_gradient(window, dy)
    batch, channels = batch_and_channels(node, node.outputs[0])
    value = node.emit("Mul", dy, _shares(node, window))
    for axis, taps in enumerate(window.kernel):
        value = place_taps(node, [value] * taps, window.along(axis), batch, channels)
    return value


def _window(node: Node, image: Tensor, output: Tensor) -> Window | OpenWindow:
    sizes = node.attribute("ksize")
    first = 2 if node.image_layout is Layout.PLAIN else 1
    kernel = sizes[first : first + image.rank - 2]
    if prod(sizes) != prod(kernel):
        raise CannotLower("it pools over channels or the batch; pooling over spatial axes would be covered")
    window = (open_window if is_open(node, image) else operation_window)(node, image, output, kernel)
    padding = (window.before, window.after) if isinstance(window, Window) else window.padding
    if padding and any(max(pads) >= taps for *pads, taps in zip(*padding, kernel, strict=True)):
        raise CannotLower("a window lies wholly in the padding; padding smaller than the window would be covered")
    return window


def _attributes(window: Window) -> dict[str, list[int]]:
    after = [max(size, 0) for size in window.after]
    return {"kernel_shape": list(window.kernel), "strides": list(window.strides), "pads": [*window.before, *after]}


def _shares(node: Node, window: Window) -> npt.NDArray[np.generic]:
    """One over the number of elements that each window covers: [1, 1, *output]."""
    counts = []
    for size, output, stride, extent, before in zip(
        window.size, window.output, window.strides, window.extent, window.before, strict=True
    ):
        starts = [position * stride - before for position in range(output)]
        counts.append([min(start + extent, size) - max(start, 0) for start in starts])
    covered = [prod(sizes) for sizes in itertools.product(*counts)]
    return np.reshape(1 / np.asarray(covered, np.float64), (1, 1, *window.output)).astype(node.dtype)
