"""Keras layers for sequences, images and volumes, with the gradients of their inputs and variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

layers = keras.layers
SEQUENCES: list[Callable[[], Any]] = [
    lambda: layers.Conv1D(4, 3, strides=2, padding="same"),
    lambda: layers.Conv1D(4, 3, dilation_rate=2, padding="causal"),
    lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
    lambda: layers.SeparableConv1D(4, 3, padding="same"),
    lambda: layers.Conv1DTranspose(4, 3, strides=2, padding="same"),
    lambda: layers.MaxPooling1D(3, 2, padding="same"),
    lambda: layers.AveragePooling1D(2),
    lambda: layers.GlobalMaxPooling1D(),
    lambda: layers.GlobalAveragePooling1D(),
    lambda: layers.UpSampling1D(2),
]
IMAGES: list[Callable[[], Any]] = [
    lambda: layers.Conv2D(4, 3, padding="same"),
    lambda: layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
    lambda: layers.Conv2D(4, (3, 2), dilation_rate=(2, 3), padding="same"),
    lambda: layers.Conv2D(4, 3, dilation_rate=2),
    lambda: layers.Conv2D(6, 3, groups=2, padding="same"),
    lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same"),
    lambda: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same"),
    lambda: layers.SeparableConv2D(4, 3),
    lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
    lambda: layers.Conv2DTranspose(4, 2, strides=3, padding="valid"),
    lambda: layers.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1),
    lambda: layers.MaxPooling2D(2),
    lambda: layers.MaxPooling2D(3, 2, padding="same"),
    lambda: layers.AveragePooling2D(3, 2, padding="same"),
    lambda: layers.GlobalMaxPooling2D(),
    lambda: layers.GlobalAveragePooling2D(),
    lambda: layers.BatchNormalization(),
    lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
    lambda: layers.Cropping2D(((1, 0), (2, 1))),
    lambda: layers.UpSampling2D(2),
    lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"),
    lambda: layers.Resizing(5, 6),
]
VOLUMES: list[Callable[[], Any]] = [
    lambda: layers.Conv3D(4, 2, strides=2, padding="same"),
    lambda: layers.Conv3D(4, 2, dilation_rate=2),
    lambda: layers.Conv3DTranspose(4, 3, strides=2, padding="same"),
    lambda: layers.MaxPooling3D(2, padding="same"),
    lambda: layers.AveragePooling3D(3, 2, padding="same"),
    lambda: layers.GlobalAveragePooling3D(),
]
FAMILIES = {"sequences": (SEQUENCES, (8, 4)), "images": (IMAGES, (8, 9, 4)), "volumes": (VOLUMES, (5, 4, 6, 2))}


def with_gradients(made: Sequence[Any], training: bool) -> Any:
    def function(x: Any) -> list[Any]:
        results = []
        for layer in made:
            variables = [variable.value for variable in layer.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=training)
            results += [y, *tape.gradient(y, [x, *variables], output_gradients=tf.square(tf.stop_gradient(y)))]
        return results

    return function


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_with_gradients(family: str) -> None:
    makers, shape = FAMILIES[family]
    keras.utils.set_random_seed(1)
    made = [make() for make in makers]
    for layer in made:
        layer.build((None, *shape))
    variables = [variable.value for layer in made for variable in layer.variables]
    check(with_gradients(made, True), {"x": Argument((None, *shape))}, precisions=["float32"], variables=variables)


def test_batch_normalization_in_inference() -> None:
    layer = layers.BatchNormalization()
    layer.build((None, 4, 5, 3))
    variables = [variable.value for variable in layer.variables]
    image = {"x": Argument((None, 4, 5, 3))}
    check(with_gradients([layer], False), image, precisions=["float32"], variables=variables)


def test_channels_first_layers() -> None:
    made = [
        layers.Conv2D(4, 3, strides=2, padding="same", data_format="channels_first"),
        layers.MaxPooling2D(3, 2, padding="same", data_format="channels_first"),
        layers.BatchNormalization(axis=1),
    ]
    for layer in made:
        layer.build((None, 3, 8, 9))
    variables = [variable.value for layer in made for variable in layer.variables]
    image = {"x": Argument((None, 3, 8, 9))}
    check(with_gradients(made, True), image, precisions=["float32"], variables=variables)
