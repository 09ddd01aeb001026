"""What is stored with channels first stays so: rules follow the layout and emit no Transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "elementwise": lambda x: tf.nn.relu(x) * 2 + tf.constant([0.5, -1, 2, 1, 3], x.dtype) - x,
    "bias": lambda x: tf.nn.bias_add(x, tf.constant([0.5, -1, 2, 1, 3], x.dtype)),
    "softmax": lambda x: tf.nn.softmax(x) + tf.nn.log_softmax(x),
    "reduction with axes kept": lambda x: x - tf.reduce_mean(x, [1, 2], keepdims=True),
    "reduction over the channels": lambda x: x * tf.reduce_sum(x, -1, keepdims=True),
    "moments": lambda x: (x - tf.reduce_mean(x, [0, 1, 2])) / tf.math.reduce_std(x, [0, 1, 2]),
    "concatenation": lambda x: tf.concat([x, x * x], -1) + tf.concat([x * x, x], 3),
    "split": lambda x: tf.concat(tf.split(x, [2, 3], -1)[::-1], -1),
    "slices": lambda x: x[:, 1:, ::2, 1:4],
    "padding": lambda x: tf.pad(x, [[0, 0], [1, 0], [0, 2], [0, 0]]),
    "reverse": lambda x: tf.reverse(x, [2]),
    "roll": lambda x: tf.roll(x, 1, 3),
    "cast": lambda x: tf.cast(x > 0, x.dtype) * x,
}


def _image(x: Any) -> Any:
    return tf.transpose(x, [0, 2, 3, 1])


def _channels_first(x: Any) -> Any:
    return tf.transpose(x, [0, 3, 1, 2])


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_channels_first(name: str) -> None:
    operation = OPERATIONS[name]
    model = check(
        gradients(lambda x: _channels_first(tf.square(operation(_image(x))))),
        {"x": Argument((None, 5, 3, 4))},
        precisions=["float32"],
    )
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose"]


REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "spatial": lambda x: tf.reduce_mean(x, [1, 2]),
    "batch and spatial": lambda x: tf.reduce_max(x, [0, 1, 2]),
    "channels and spatial": lambda x: tf.reduce_sum(x, [1, 2, 3]),
    "everything": lambda x: tf.reduce_sum(x),
    "rows and channels": lambda x: tf.reduce_sum(x, [1, 3]),
    "channels": lambda x: tf.reduce_sum(x, [3]),
    "pooling": lambda x: tf.squeeze(tf.reduce_mean(x, [1, 2], keepdims=True), [1, 2]),
    "scaled": lambda x: tf.reshape(tf.reduce_mean(x, [1, 2]), [-1, 1, 1, 5])[:, 0, 0],
    "bias": lambda x: tf.reduce_sum(tf.reshape(tf.reduce_sum(x, [1, 2], keepdims=True), [-1, 5]), 0),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_need_no_transpose(name: str) -> None:
    reduction = REDUCTIONS[name]
    model = check(
        gradients(lambda x: tf.square(reduction(_image(x)))), {"x": Argument((None, 5, 3, 4))}, precisions=["float32"]
    )
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose"]


def test_what_leaves_the_layout_is_right() -> None:
    def function(x: Any) -> list[Any]:
        image = _image(x)
        flat = tf.reshape(image, [-1, 60])
        parts = [tf.reduce_sum(image, 0), tf.reduce_sum(image, [1]), image[:, 0], image[..., tf.newaxis, 2]]
        turned = [tf.transpose(image, [3, 0, 2, 1]), tf.transpose(image), tf.stack(tf.unstack(image, axis=1), 2)]
        return [flat, *parts, *turned, tf.gather(image, [1, 0], axis=3), image @ tf.ones([5, 2], x.dtype)]

    check(gradients(function), {"x": Argument((None, 5, 3, 4))}, precisions=["float32"])


def test_one_dimensional_images_keep_channels_first() -> None:
    def function(x: Any) -> Any:
        signal = tf.transpose(x, [0, 2, 1])
        signal = tf.pad(signal - tf.reduce_mean(signal, 1, keepdims=True), [[0, 0], [1, 1], [0, 0]])
        return tf.transpose(tf.nn.relu(signal), [0, 2, 1])

    model = check(gradients(function), {"x": Argument((None, 5, 4))}, precisions=["float32"])
    assert not [node.name for node in model.graph.node if node.op_type == "Transpose"]


def test_broadcasts_stay_narrow_through_elementwise_operations() -> None:
    def function(x: Any) -> Any:
        image = _image(x)
        mean, variance = tf.nn.moments(image, [0, 1, 2])
        normal = (image - mean) * tf.math.rsqrt(variance + 0.001)
        return _channels_first(tf.square(normal - tf.broadcast_to(mean * 2, tf.shape(image))))

    model = check(gradients(function), {"x": Argument((None, 5, 3, 4))}, precisions=["float32"])
    # The one that is left is the gradient of the sum over the results.
    written_out = [node.name for node in model.graph.node if node.op_type in ("Expand", "Transpose")]
    assert written_out == ["gradient_tape/Tile/Expand"]


def test_broadcasts_are_written_out_where_they_must_be() -> None:
    def function(x: Any, scalar: Any) -> list[Any]:
        image = tf.broadcast_to(x[:, None, None], [tf.shape(x)[0], 3, 4, 5])
        whole = tf.fill(tf.shape(x), scalar) * 2
        return [image + 1, tf.reshape(image * 2, [-1, 60]), tf.reduce_sum(-image, [1, 2]), whole, whole + whole]

    check(gradients(function), {"x": Argument((None, 5)), "scalar": Argument(())})
