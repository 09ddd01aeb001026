"""Operations that TensorFlow has no float64 form of, composed of those that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from graphfreeze.lowering.eager import execute_operation
from graphfreeze.training.graph import Edge, Operation

__all__ = ["COMPOSED"]

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def _pool_3d(pool: Callable[..., Any]) -> Callable[[Operation, list[Any]], list[Any]]:
    """Pooling over height and width, then over depth: a maximum of maxima, a mean of means of as many values each."""

    def apply(operation: Operation, inputs: list[Any]) -> list[Any]:
        (x,) = inputs
        sizes, strides = (operation.attributes[name].list.i for name in ("ksize", "strides"))
        padding = operation.attributes["padding"].s.decode()
        n, depth, height, width, channels = x.shape
        planes = tf.reshape(x, (n * depth, height, width, channels))
        planes = pool(planes, sizes[2:4], strides[2:4], padding)
        height, width = planes.shape[1:3]
        columns = tf.reshape(planes, (n, depth, height * width, channels))
        columns = pool(columns, (sizes[1], 1), (strides[1], 1), padding)
        return [tf.reshape(columns, (n, columns.shape[1], height, width, channels))]

    return apply


def _resize(operation: Operation, inputs: list[Any]) -> list[Any]:
    """A resized image is linear in the pixels: the weights are what float32 makes of each pixel alone."""
    x, *others = inputs
    _, height, width, _ = x.shape
    pixels = tf.reshape(tf.eye(height * width), (1, height, width, height * width))
    narrow = Operation(operation.type, operation.name, [], [Edge("resized", tf.float32)])
    floats = [tf.cast(t, tf.float32) if t.dtype == tf.float64 else t for t in others]
    narrow.attributes = {n: v for n, v in operation.attributes.items() if v.WhichOneof("value") != "type"}
    (weights,) = execute_operation(narrow, [pixels, *floats])
    rows = tf.reshape(x, (x.shape[0], height * width, x.shape[3]))
    return [tf.einsum("ijp,npc->nijc", tf.cast(weights[0], tf.float64), rows)]


def _channels_first(operation: Operation, inputs: list[Any]) -> list[Any]:
    """A two-dimensional operation of channels-first images, done channels last."""
    if operation.attributes["data_format"].s != b"NCHW":
        return execute_operation(operation, inputs)
    last = Operation(operation.type, operation.name, operation.inputs, operation.outputs)
    for name, value in operation.attributes.items():
        made = type(value)()
        made.CopyFrom(value)
        if name == "data_format":
            made.s = b"NHWC"
        elif len(value.list.i) == 4:
            made.list.i[:] = [value.list.i[axis] for axis in _TO_LAST]
        elif len(value.list.i) == 8:
            made.list.i[:] = [value.list.i[2 * axis + side] for axis in _TO_LAST for side in (0, 1)]
        last.attributes[name] = made
    results = execute_operation(last, [tf.transpose(inputs[0], _TO_LAST), *inputs[1:]])
    return [tf.transpose(result, _TO_FIRST) for result in results]


COMPOSED: Mapping[str, Callable[[Operation, list[Any]], list[Any]]] = {
    "AvgPool3D": _pool_3d(tf.nn.avg_pool2d),
    "MaxPool3D": _pool_3d(tf.nn.max_pool2d),
    "ResizeBilinear": _resize,
    "ResizeBicubic": _resize,
    "ResizeArea": _resize,
    "ScaleAndTranslate": _resize,
    "Conv2D": _channels_first,
    "AvgPool": _channels_first,
    "MaxPool": _channels_first,
    "DepthwiseConv2dNative": _channels_first,
}
"""What an operation's outputs are, by its type."""
