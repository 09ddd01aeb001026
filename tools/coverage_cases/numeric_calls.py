"""Operations of TensorFlow that no layer of Keras makes: functions of a module with two parameters and of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

__all__ = ["NUMERIC_CALLS"]


def _patches(m: Any, x: Any) -> Any:
    """What a window holds at each place of an image."""
    images = tf.reshape(x @ m.kernel, [-1, 2, 2, 1])
    patches = tf.image.extract_patches(images, [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")
    return tf.reshape(patches, [-1, 4, 4]) @ m.bias[0, :, None]


def _volume_patches(m: Any, x: Any) -> Any:
    """What a window holds at each place of a volume."""
    volumes = tf.reshape(x @ m.kernel, [-1, 2, 2, 1, 1])
    patches = tf.extract_volume_patches(volumes, [1, 2, 2, 1, 1], [1, 1, 1, 1, 1], "SAME")
    return tf.reshape(patches, [-1, 4, 4]) @ m.bias[0, :, None]


def _largest(m: Any, x: Any) -> Any:
    """Rows of a parameter, by which number is the largest and which the smallest one."""
    h = x @ m.kernel
    return h * tf.gather(m.bias, keras.ops.argmax(h, 1)) + tf.gather(m.bias, keras.ops.argmin(h, 1))


def _fake_quantised(m: Any, x: Any) -> Any:
    """Kernel, inputs and outputs in few bits, in a range for each column, one that trains, and a fixed one."""
    q = tf.quantization
    kernel = q.fake_quant_with_min_max_vars_per_channel(m.kernel, -tf.exp(m.bias[0]), tf.exp(m.bias[1]), 4)
    h = q.fake_quant_with_min_max_vars(x, -tf.exp(m.bias[2, 0]), tf.exp(m.bias[2, 1]))
    return q.fake_quant_with_min_max_args(h @ kernel, -2.0, 2.0, narrow_range=True)


def _graph(m: Any, x: Any) -> Any:
    """A convolution over the edges of a graph whose nodes are the rows of a parameter."""
    edges = tf.SparseTensor([[0, 1], [1, 0], [2, 6], [5, 3], [6, 2]], [0.5, 0.5, 1.0, 2.0, 1.0], [7, 7])
    nodes = tf.sparse.sparse_dense_matmul(edges, tf.tanh(m.bias @ m.kernel))
    return tf.nn.softmax(x @ tf.transpose(nodes)) @ nodes


def _diagonals(m: Any, x: Any) -> Any:
    """A matrix of three diagonals for each example."""
    band = tf.linalg.diag_part(x[:, :, None] * m.kernel, k=(-1, 1))
    return tf.linalg.matvec(tf.linalg.diag(tf.tanh(band), k=(-1, 1)), x)


def _cross(m: Any, x: Any) -> Any:
    """The cross product of two vectors."""
    h = x @ m.kernel
    return tf.linalg.cross(h[:, :3], tf.tanh(h[:, 1:]))


def _repeated(m: Any, x: Any) -> Any:
    """Each column as often as a constant says."""
    return tf.repeat(x @ m.kernel, [2, 0, 1, 1], axis=1) @ m.kernel


def _rolled(m: Any, x: Any) -> Any:
    """Each example beside the one before the last."""
    h = x @ m.kernel
    return h * tf.roll(h, 2, 0)


def _histogram(m: Any, x: Any) -> Any:
    """How the inputs are distributed, as weights."""
    counts = tf.histogram_fixed_width(x, [-2.0, 2.0], 7)
    return x @ m.kernel + tf.linalg.matvec(m.bias, tf.cast(counts, tf.float32), transpose_a=True)


NUMERIC_CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "tf.image.extract_patches": _patches,
    "tf.extract_volume_patches": _volume_patches,
    "keras.ops.argmax": _largest,
    "fake quantisation": _fake_quantised,
    "tf.sparse.sparse_dense_matmul": _graph,
    "tf.linalg.diag of bands": _diagonals,
    "tf.linalg.cross": _cross,
    "tf.repeat by constants": _repeated,
    "tf.roll along the batch": _rolled,
    "tf.histogram_fixed_width": _histogram,
}
