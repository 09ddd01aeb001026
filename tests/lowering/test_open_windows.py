"""Convolutions and pooling over sequences of any length, and over images with an open side, with all gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from tests.lowering.conversion import Argument, check, gradients

layers = keras.layers
SHORT = [(3, 5), (2, 1), (1, 2), (2, 3), (1, 4), (2, 8), (3, 9), (1, 12)]
LONG = [(3, 7), (2, 5), (1, 8), (2, 9), (1, 14), (3, 6)]
"""Batches and lengths, those that leave something over after any stride or dilation among them."""


def with_gradients(layer: Any, variables: Sequence[Any]) -> Callable[[Any], list[Any]]:
    def function(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        weights = tf.cast(tf.reshape(tf.range(tf.size(y)) % 7, tf.shape(y)), y.dtype) / 8
        return [y, *tape.gradient(y, [x, *variables], output_gradients=tf.stop_gradient(y) + weights)]

    return function


def check_layer(
    make: Callable[[], Any],
    shape: tuple[int | None, ...] = (None, 4),
    sizes: Sequence[tuple[int, int]] = SHORT,
    precisions: Sequence[str] = ("float32", "float64"),
) -> onnx.ModelProto:
    """The layer's results and the gradients of its input and of its weights against TensorFlow's."""
    for precision in precisions:
        keras.config.set_dtype_policy(precision)
        try:
            layer = make()
        finally:
            keras.config.set_dtype_policy("float32")
        layer.build((None, *shape))
        variables = [variable.value for variable in layer.trainable_variables]
        images = {"x": Argument((None, *shape))}
        proto = check(
            with_gradients(layer, variables), images, precisions=[precision], variables=variables, sizes=sizes
        )
    return proto


def chain(*parts: Any) -> Any:
    return keras.Sequential(list(parts))


class InTwoWays(keras.layers.Layer):
    """Adds two layers that leave as much, of which one comes to it through another stride."""

    def build(self, shape: Any) -> None:
        self.built = True

    def call(self, x: Any) -> Any:
        pooled = tf.nn.max_pool1d(x, 2, 2, "SAME")
        return tf.nn.max_pool1d(pooled, 3, 2, "SAME") + tf.nn.avg_pool1d(x, 4, 4, "SAME")


class BothHalves(keras.layers.Layer):
    """Halves rounded up and down, which are the length together."""

    def build(self, shape: Any) -> None:
        self.built = True

    def call(self, x: Any) -> Any:
        halves = [tf.nn.max_pool1d(x, 2, 2, padding) for padding in ("SAME", "VALID")]
        return tf.concat(halves, 1) * tf.reverse(x, [1])


LAYERS: dict[str, Callable[[], Any]] = {
    "same": lambda: layers.Conv1D(3, 3, padding="same"),
    "same of four taps": lambda: layers.Conv1D(3, 4, padding="same"),
    "causal": lambda: layers.Conv1D(3, 3, padding="causal"),
    "pointwise": lambda: layers.Conv1D(3, 1),
    "groups": lambda: layers.Conv1D(6, 3, padding="same", groups=2),
    "separable": lambda: layers.SeparableConv1D(3, 3, padding="same", depth_multiplier=2),
    "depthwise": lambda: layers.DepthwiseConv1D(4, padding="same", depth_multiplier=2),
    "max": lambda: layers.MaxPooling1D(3, 1, padding="same"),
    "average": lambda: layers.AveragePooling1D(4, 1, padding="same"),
    "dilated": lambda: layers.Conv1D(3, 3, padding="same", dilation_rate=2),
    "dilated by three": lambda: layers.Conv1D(3, 2, padding="same", dilation_rate=3),
    "dilated causal": lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=4),
    "dilated depthwise": lambda: layers.DepthwiseConv1D(3, padding="same", dilation_rate=3),
    "dilated separable": lambda: layers.SeparableConv1D(3, 3, padding="same", dilation_rate=2),
    "transposed": lambda: layers.Conv1DTranspose(3, 3, padding="same"),
    "transposed by two": lambda: layers.Conv1DTranspose(3, 3, strides=2, padding="same"),
    "transposed by two, valid": lambda: layers.Conv1DTranspose(3, 3, strides=2),
    "transposed by three": lambda: layers.Conv1DTranspose(3, 2, strides=3, padding="same"),
    "transposed by three, valid": lambda: layers.Conv1DTranspose(3, 2, strides=3),
    "transposed by three, six taps": lambda: layers.Conv1DTranspose(3, 6, strides=3, padding="same"),
}
VALID: dict[str, Callable[[], Any]] = {
    "convolution": lambda: layers.Conv1D(3, 3),
    "depthwise": lambda: layers.DepthwiseConv1D(3),
    "dilated": lambda: layers.Conv1D(3, 3, dilation_rate=2),
    "max": lambda: layers.MaxPooling1D(2, 1),
    "average": lambda: layers.AveragePooling1D(3, 1),
}
STRIDED: dict[str, Callable[[], Any]] = {
    "same": lambda: layers.Conv1D(3, 3, strides=2, padding="same"),
    "same of four taps": lambda: layers.Conv1D(3, 4, strides=2, padding="same"),
    "same of one tap": lambda: layers.Conv1D(3, 1, strides=2, padding="same"),
    "same, a stride beyond the filter": lambda: layers.Conv1D(3, 2, strides=3, padding="same"),
    "same by three": lambda: layers.Conv1D(3, 5, strides=3, padding="same"),
    "causal": lambda: layers.Conv1D(3, 3, strides=2, padding="causal"),
    "groups": lambda: layers.Conv1D(6, 3, strides=2, padding="same", groups=2),
    "separable": lambda: layers.SeparableConv1D(3, 3, strides=2, padding="same", depth_multiplier=2),
    "depthwise by three": lambda: layers.DepthwiseConv1D(4, strides=3, padding="same", depth_multiplier=2),
    "max": lambda: layers.MaxPooling1D(3, 2, padding="same"),
    "max, a stride beyond the window": lambda: layers.MaxPooling1D(2, 3, padding="same"),
    "average": lambda: layers.AveragePooling1D(3, 2, padding="same"),
    "average by three": lambda: layers.AveragePooling1D(4, 3, padding="same"),
    "after twice as many": lambda: chain(layers.UpSampling1D(2), layers.Conv1D(4, 3, strides=4, padding="same")),
    "recurrent": lambda: chain(
        layers.Conv1D(4, 3, strides=2, padding="same", activation="tanh"),
        layers.MaxPooling1D(2, padding="same"),
        layers.LSTM(3),
    ),
    "in two ways": lambda: InTwoWays(),
}
STRIDED_VALID: dict[str, Callable[[], Any]] = {
    "convolution": lambda: layers.Conv1D(3, 3, strides=2),
    "convolution of two taps": lambda: layers.Conv1D(3, 2, strides=2),
    "a stride beyond the filter": lambda: layers.Conv1D(3, 2, strides=3),
    "depthwise": lambda: layers.DepthwiseConv1D(3, strides=2),
    "max": lambda: layers.MaxPooling1D(2),
    "max of three": lambda: layers.MaxPooling1D(3, 2),
    "average": lambda: layers.AveragePooling1D(2),
    "there and back": lambda: chain(
        layers.Conv1DTranspose(3, 3, strides=2, padding="same"), layers.Conv1D(4, 3, strides=2, activation="tanh")
    ),
    "both halves": lambda: BothHalves(),
}
IMAGES: dict[str, tuple[Callable[[], Any], tuple[int | None, ...]]] = {
    "convolution": (lambda: layers.Conv2D(3, 3, padding="same"), (None, 6, 2)),
    "valid": (lambda: layers.Conv2D(3, (2, 1)), (6, None, 2)),
    "dilated": (lambda: layers.Conv2D(3, (2, 3), padding="same", dilation_rate=2), (6, None, 2)),
    "max": (lambda: layers.MaxPooling2D(2, 1, padding="same"), (None, 6, 2)),
    "average": (lambda: layers.AveragePooling2D(2, 1, padding="same"), (None, 6, 2)),
    "strided": (lambda: layers.Conv2D(3, 3, strides=2, padding="same"), (None, 6, 2)),
    "strided max": (lambda: layers.MaxPooling2D(2, padding="same"), (None, 6, 2)),
    "strided average": (lambda: layers.AveragePooling2D((3, 2), 2, padding="same"), (7, None, 2)),
    "volumes": (lambda: layers.Conv3D(3, 2, padding="same"), (None, 3, 4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_any_length(name: str) -> None:
    check_layer(LAYERS[name])


@pytest.mark.parametrize("name", VALID)
def test_layers_without_padding(name: str) -> None:
    check_layer(VALID[name], sizes=LONG)


@pytest.mark.parametrize("name", STRIDED)
def test_strided_layers(name: str) -> None:
    check_layer(STRIDED[name])


@pytest.mark.parametrize("name", STRIDED_VALID)
def test_strided_layers_without_padding(name: str) -> None:
    check_layer(STRIDED_VALID[name], sizes=LONG)


def test_strides_one_after_the_other() -> None:
    def make() -> Any:
        return chain(
            layers.Conv1D(3, 3, strides=2, padding="same", activation="tanh"),
            layers.Conv1D(4, 3, strides=2, activation="tanh"),
            layers.MaxPooling1D(3, padding="same"),
        )

    proto = check_layer(make, sizes=[(1 + length % 3, length) for length in (*range(6, 20), 33, 40)])
    (sizes,) = {tuple(d.dim_param for d in value.type.tensor_type.shape.dim) for value in proto.graph.output[:1]}
    assert sizes == ("batch", "length_plus_7_div_12", "")


@pytest.mark.parametrize("name", IMAGES)
def test_images_with_an_open_side(name: str) -> None:
    make, shape = IMAGES[name]
    check_layer(make, shape)


def test_dilated_transposed_convolution() -> None:
    # TensorFlow has no float64 kernel of it.
    check_layer(lambda: layers.Conv1DTranspose(3, 3, padding="same", dilation_rate=2), precisions=["float32"])


def test_explicit_padding() -> None:
    pads = [[0, 0], [2, 0], [0, 1], [0, 0]]

    def function(x: Any, w: Any) -> list[Any]:
        return [tf.nn.conv2d(x, w, 1, pads), tf.nn.max_pool2d(x, (3, 2), 1, pads)]

    check(gradients(function), {"x": Argument((None, None, 5, 2)), "w": Argument((3, 2, 2, 3))}, sizes=SHORT)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_explicit_padding_with_strides(stride: int) -> None:
    paddings = [[[0, 0], [2, 1], [0, 1], [0, 0]], [[0, 0], [1, 2], [1, 1], [0, 0]]]

    def function(x: Any, w: Any) -> list[Any]:
        return [tf.nn.conv2d(x, w, stride, pads) for pads in paddings]

    check(gradients(function), {"x": Argument((None, None, 5, 2)), "w": Argument((3, 2, 2, 3))}, sizes=LONG)


def test_transposed_convolutions_of_given_sizes() -> None:
    def function(x: Any, w: Any) -> list[Any]:
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        return [
            tf.nn.conv2d_transpose(x, w, [batch, 3 * length - 1, 5, 3], [1, 3, 1, 1], "SAME"),
            tf.nn.conv2d_transpose(x, w, [batch, 3 * length + 2, 6, 3], [1, 3, 1, 1], "VALID"),
        ]

    check(gradients(function), {"x": Argument((None, None, 5, 2)), "w": Argument((3, 2, 3, 2))}, sizes=SHORT)


def test_strides_and_dilations_at_once() -> None:
    def function(x: Any, w: Any) -> list[Any]:
        options = {"strides": [1, 2, 1, 1], "dilations": [1, 2, 1, 1]}
        return [tf.raw_ops.Conv2D(input=x, filter=w, padding=padding, **options) for padding in ("SAME", "VALID")]

    check(function, {"x": Argument((None, None, 5, 2)), "w": Argument((3, 2, 2, 3))}, sizes=LONG)


def test_dilations_leave_no_blocks() -> None:
    proto = check_layer(LAYERS["dilated"], precisions=["float32"])
    (convolution,) = (node for node in proto.graph.node if node.op_type == "Conv")
    attributes = {attribute.name: list(attribute.ints) for attribute in convolution.attribute}
    assert attributes["dilations"] == [1, 2] and attributes["pads"] == [0, 2, 0, 2]


def strided_model() -> Any:
    x = keras.Input((None, 4), name="x")
    h = layers.Conv1D(6, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    h = layers.MaxPooling1D(2, padding="same", name="pool")(h)
    h = layers.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="tanh", name="dilated")(h)
    return keras.Model(x, layers.Dense(2, name="out")(layers.LSTM(4, name="lstm")(h)), name="strided")


def test_a_strided_model_trains_on_any_length(tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    model = strided_model()
    graphfreeze.export(model, tmp_path / "model")
    frozen = [Selection("freeze", "**/kernel[0]")]
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", frozen, loss="mse", optimizer="sgd:learning_rate=0.1")
    trainer = Trainer(tmp_path / "out", device="cpu")
    assert [entry.shape for entry in trainer.artifact.manifest.batch] == [("batch", "length", 4), ("batch", 2)]
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    kept = [(v, v.numpy()[0]) for v in model.trainable_variables if v.path.endswith("/kernel")]
    rng = np.random.default_rng(0)
    for batch, length in [(4, 5), (2, 11), (3, 1), (5, 2), (1, 8), (4, 16), (3, 17), (2, 3)]:
        x, y = rng.normal(size=(batch, length, 4)), rng.normal(size=(batch, 2))
        expected = float(model.train_on_batch(x, y))
        for variable, first in kept:
            variable.assign(np.concatenate([first[None], variable.numpy()[1:]]))
        assert trainer.step({"x": x.astype(np.float32), "y": y.astype(np.float32)}) == pytest.approx(expected, rel=1e-5)
