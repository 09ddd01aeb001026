"""Resizing of images and its gradients. Sizes are known, hence so is where each element comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import tensorflow as tf

from graphfreeze.lowering.convolution_geometry import Sizes, image_dims
from graphfreeze.lowering.rule import CHANNELS_FIRST, KNOWN, UNUSED, Node, rule


@rule("ResizeBilinear", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_bilinear(node: Node, x: ir.Value) -> ir.Value:
    """Bilinear interpolation with any alignment of the corners."""
    *_, size = image_dims(node, node.inputs[0])
    batch, channels, reached = image_dims(node, node.outputs[0])
    x = x if node.inputs[0].dtype == np.float32 else node.cast(x, np.float32)
    if size == reached:
        return x
    mode = "asymmetric"
    if node.attribute("half_pixel_centers", False):
        mode = "half_pixel"
    elif node.attribute("align_corners", False):
        mode = "align_corners"
    sizes = node.vector([batch, channels, *reached])
    return node.emit("Resize", x, None, None, sizes, mode="linear", coordinate_transformation_mode=mode)


@rule("ResizeBilinearGrad", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_bilinear_gradient(node: Node, dy: ir.Value) -> ir.Value:
    """The gradient of bilinear interpolation: products with the interpolation matrices of both axes."""
    *_, size = image_dims(node, node.outputs[0])
    *_, reached = image_dims(node, node.inputs[0])
    weights = [_linear_weights(node, *axis) for axis in zip(size, reached, strict=True)]
    return _to_output_dtype(node, _reduce(node, dy, weights))


@rule("ResizeNearestNeighbor", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_nearest(node: Node, x: ir.Value) -> ir.Value:
    """The nearest element, with any alignment of the corners."""
    *_, size = image_dims(node, node.inputs[0])
    *_, reached = image_dims(node, node.outputs[0])
    for axis, sizes in enumerate(zip(size, reached, strict=True)):
        sources = _nearest(node, *sizes)
        if sources.tolist() != list(range(sizes[0])):
            x = node.emit("Gather", x, sources, axis=axis + 2)
    return x


@rule("ResizeNearestNeighborGrad", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_nearest_gradient(node: Node, dy: ir.Value) -> ir.Value:
    """Each element's gradient is the sum over the elements that it became."""
    batch, channels, size = image_dims(node, node.outputs[0])
    *_, reached = image_dims(node, node.inputs[0])
    sources = [_nearest(node, *axis) for axis in zip(size, reached, strict=True)]
    factors = [end // start for start, end in zip(size, reached, strict=True)]
    repeats = [np.repeat(np.arange(n), factor) for n, factor in zip(size, factors, strict=True)]
    if all(np.array_equal(*pair) for pair in zip(sources, repeats, strict=True)):
        blocks = node.reshape(dy, [batch, channels, size[0], factors[0], size[1], factors[1]])
        return node.emit("ReduceSum", blocks, node.int64([3, 5]), keepdims=0)
    weights = [np.eye(n, dtype=node.dtype)[found] for found, n in zip(sources, size, strict=True)]
    return _reduce(node, dy, weights)


@rule("ResizeBicubic", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_bicubic(node: Node, x: ir.Value) -> ir.Value:
    """Bicubic interpolation with any alignment of the corners: products with matrices of both axes."""
    *_, size = image_dims(node, node.inputs[0])
    *_, reached = image_dims(node, node.outputs[0])
    x = x if node.inputs[0].dtype == np.float32 else node.cast(x, np.float32)
    rows, columns = (_cubic_weights(node, *axis) for axis in zip(size, reached, strict=True))
    return _reduce(node, x, [np.ascontiguousarray(rows.T), np.ascontiguousarray(columns.T)])


@rule("ResizeBicubicGrad", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_bicubic_gradient(node: Node, dy: ir.Value) -> ir.Value:
    """The gradient of bicubic interpolation: products with the interpolation matrices of both axes."""
    *_, size = image_dims(node, node.outputs[0])
    *_, reached = image_dims(node, node.inputs[0])
    weights = [_cubic_weights(node, *axis) for axis in zip(size, reached, strict=True)]
    return _to_output_dtype(node, _reduce(node, dy, weights))


@rule("ResizeArea", inputs=(CHANNELS_FIRST, UNUSED), outputs=(CHANNELS_FIRST,))
def resize_area(node: Node, x: ir.Value) -> ir.Value:
    """The mean of the area that an element covers: products with matrices of both axes."""
    x = x if node.inputs[0].dtype == np.float32 else node.cast(x, np.float32)
    align = node.attribute("align_corners", False)
    return _by_matrices(
        node, x, lambda _, rows, reached: tf.raw_ops.ResizeArea(images=rows, size=[reached, 1], align_corners=align)
    )


@rule("ScaleAndTranslate", inputs=(CHANNELS_FIRST, UNUSED, KNOWN, KNOWN), outputs=(CHANNELS_FIRST,))
def scale_and_translate(node: Node, x: ir.Value, scale: Numbers, translation: Numbers) -> ir.Value:
    """Interpolation with a wider kernel (Lanczos, or an antialiased one): products with matrices of both axes."""
    x = x if node.inputs[0].dtype == np.float32 else node.cast(x, np.float32)
    return _by_matrices(node, x, _kernel(node, scale, translation))


@rule("ScaleAndTranslateGrad", inputs=(CHANNELS_FIRST, UNUSED, KNOWN, KNOWN), outputs=(CHANNELS_FIRST,))
def scale_and_translate_gradient(node: Node, dy: ir.Value, scale: Numbers, translation: Numbers) -> ir.Value:
    """The gradient of interpolation with a wider kernel: products with the matrices of both axes."""
    *_, size = image_dims(node, node.outputs[0])
    *_, reached = image_dims(node, node.inputs[0])
    return _to_output_dtype(node, _reduce(node, dy, _matrices(size, reached, _kernel(node, scale, translation))))


Numbers = npt.NDArray[Any]
Interpolation = Callable[[int, Numbers, int], Any]
"""What TensorFlow makes of rows, one image high: of which axis, the rows, and how many there are to be."""


def _kernel(node: Node, scale: Numbers, translation: Numbers) -> Interpolation:
    kernel_type, antialias = node.attribute("kernel_type", "lanczos3"), node.attribute("antialias", True)
    return lambda axis, rows, reached: tf.raw_ops.ScaleAndTranslate(
        images=rows,
        size=[reached, 1],
        scale=[scale[axis], 1.0],
        translation=[translation[axis], 0.0],
        kernel_type=kernel_type,
        antialias=antialias,
    )


def _by_matrices(node: Node, x: ir.Value, interpolate: Interpolation) -> ir.Value:
    *_, size = image_dims(node, node.inputs[0])
    *_, reached = image_dims(node, node.outputs[0])
    rows, columns = _matrices(size, reached, interpolate)
    return _reduce(node, x, [np.ascontiguousarray(rows.T), np.ascontiguousarray(columns.T)])


def _matrices(size: Sizes, reached: Sizes, interpolate: Interpolation) -> list[Numbers]:
    """The interpolation of each axis as a matrix [reached, size]: what TensorFlow makes of an identity matrix."""
    found = []
    for axis, (before, after) in enumerate(zip(size, reached, strict=True)):
        rows = np.eye(before, dtype=np.float32).reshape(1, before, 1, before)
        found.append(interpolate(axis, rows, after).numpy().reshape(after, before))
    return found


def _cubic_weights(node: Node, size: int, reached: int) -> npt.NDArray[Any]:
    """The interpolation of one axis as a matrix [reached, size]: what TensorFlow makes of an identity matrix.

    Its kernel takes the coefficients from a table of 1024 positions, which a formula would not reproduce.
    """
    found = tf.raw_ops.ResizeBicubic(
        images=np.eye(size, dtype=np.float32).reshape(1, size, 1, size),
        size=[reached, 1],
        align_corners=node.attribute("align_corners", False),
        half_pixel_centers=node.attribute("half_pixel_centers", False),
    )
    weights: npt.NDArray[Any] = found.numpy().reshape(reached, size)
    return weights


def _scale(node: Node, size: int, reached: int) -> np.float32:
    if node.attribute("align_corners", False) and reached > 1:
        return np.float32(size - 1) / np.float32(reached - 1)
    return np.float32(size) / np.float32(reached)


def _linear_weights(node: Node, size: int, reached: int) -> npt.NDArray[Any]:
    """The interpolation of one axis as a matrix [reached, size]."""
    positions = np.arange(reached, dtype=np.float32)
    scale = _scale(node, size, reached)
    if node.attribute("half_pixel_centers", False):
        sources = (positions + np.float32(0.5)) * scale - np.float32(0.5)
    else:
        sources = positions * scale
    below = np.floor(sources)
    share = sources - below
    weights = np.zeros((reached, size), np.float32)
    rows = np.arange(reached)
    np.add.at(weights, (rows, np.maximum(below, 0).astype(np.int64)), 1 - share)
    np.add.at(weights, (rows, np.minimum(below + 1, size - 1).astype(np.int64)), share)
    return weights


def _nearest(node: Node, size: int, reached: int) -> npt.NDArray[np.int64]:
    """For each position the one it is taken from."""
    positions = np.arange(reached, dtype=np.float32)
    if node.attribute("half_pixel_centers", False):
        positions = positions + np.float32(0.5)
    sources = positions * _scale(node, size, reached)
    # Not numpy's rounding of halves to even, but away from zero as in C.
    rounded = np.floor(sources + np.float32(0.5)) if node.attribute("align_corners", False) else np.floor(sources)
    found: npt.NDArray[np.int64] = np.minimum(rounded, size - 1).astype(np.int64)
    return found


def _reduce(node: Node, dy: ir.Value, weights: list[npt.NDArray[Any]]) -> ir.Value:
    rows, columns = weights
    if not _is_identity(rows):
        dy = node.emit("MatMul", np.ascontiguousarray(rows.T), dy)
    return dy if _is_identity(columns) else node.emit("MatMul", dy, columns)


def _is_identity(weights: npt.NDArray[Any]) -> bool:
    return np.array_equal(weights, np.eye(len(weights)))


def _to_output_dtype(node: Node, value: ir.Value) -> ir.Value:
    return value if node.dtype == np.float32 else node.cast(value, node.dtype)
