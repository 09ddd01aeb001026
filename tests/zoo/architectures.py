"""The Keras models of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests.zoo.data import images

__all__ = [
    "application",
    "convolutions",
    "dense",
    "fit_statistics",
    "prune",
    "sequences",
    "text_classifier",
    "training_mode",
    "transformer",
    "weaken_branches",
]

layers = keras.layers


def application(name: str, **options: Any) -> Callable[[], Any]:
    build = getattr(keras.applications, name)
    return lambda: build(weights=None, input_shape=(64, 64, 3), classes=10, classifier_activation=None, **options)


def text_classifier(recurrent: Any, mask_zero: bool) -> Callable[[], Any]:
    def build() -> Any:
        return keras.Sequential(
            [
                keras.Input((12,), dtype="int32", name="tokens"),
                layers.Embedding(100, 8, mask_zero=mask_zero, name="embedding"),
                recurrent(10, name="recurrent"),
                layers.Dense(4, name="scores"),
            ],
            name="classifier",
        )

    return build


def transformer() -> Any:
    tokens = keras.Input((10,), dtype="int32", name="tokens")
    x = layers.Embedding(50, 16, name="words")(tokens)
    positions = layers.Embedding(10, 16, name="positions")(keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1)
    x = x + positions
    for block in range(2):
        normalized = layers.LayerNormalization(name=f"norm_{block}_a")(x)
        x = x + layers.MultiHeadAttention(2, 8, name=f"attention_{block}")(normalized, normalized, use_causal_mask=True)
        normalized = layers.LayerNormalization(name=f"norm_{block}_b")(x)
        hidden = layers.Dense(32, activation="gelu", name=f"up_{block}")(normalized)
        x = x + layers.Dense(16, name=f"down_{block}")(hidden)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm")(x))
    return keras.Model(tokens, layers.Dense(4, name="scores")(x), name="transformer")


def dense() -> Any:
    biases = keras.initializers.RandomNormal(stddev=0.1)
    return keras.Sequential(
        [
            keras.Input((20,), name="x"),
            layers.Dense(32, "swish", bias_initializer=biases, name="hidden"),
            layers.Dense(32, "tanh", bias_initializer=biases, name="hidden_2"),
            layers.Dense(4, bias_initializer=biases, name="scores"),
        ],
        name="pruned",
    )


def prune(model: Any) -> None:
    """Set the smaller half of every kernel to zero."""
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        kernel[np.abs(kernel) < np.median(np.abs(kernel))] = 0
        layer.set_weights([kernel, bias])


def fit_statistics(model: Any) -> None:
    """Give batch normalization the statistics of a batch, as training would: signals then neither vanish nor grow."""
    normalizations = [layer for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        layer.momentum = 0.0
    scale = 255.0 if any(isinstance(layer, layers.Rescaling) for layer in model.layers) else 1.0
    model(images(64, 64, scale=scale)(np.random.default_rng(1), 16), training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum


def weaken_branches(model: Any) -> None:
    """Scale down what the branches of a ResNet add, as training does: fresh ones amplify rounding a thousandfold."""
    for layer in model.layers:
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.2))


def sequences() -> Any:
    tokens = keras.Input((12,), dtype="int32", name="tokens")
    x = layers.Embedding(40, 8, name="words")(tokens)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both_ways")(x)
    x = layers.SimpleRNN(6, return_sequences=True, go_backwards=True, name="simple")(x)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum", name="gru_both_ways")(x)
    branches = [
        layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="tanh", name="causal")(x),
        layers.Conv1D(4, 3, padding="same", activation="tanh", name="same")(x),
        layers.Conv1D(4, 3, padding="same", strides=2, activation="tanh", name="same_strides")(x),
        layers.Conv1D(4, 2, padding="valid", strides=3, activation="tanh", name="valid_strides")(x),
        layers.Conv1D(4, 3, padding="valid", dilation_rate=3, activation="tanh", name="valid_dilated")(x),
        layers.Conv1D(4, 3, padding="same", groups=2, activation="tanh", name="groups")(x),
        layers.SeparableConv1D(4, 3, padding="same", depth_multiplier=2, name="separable")(x),
        layers.DepthwiseConv1D(3, padding="valid", depth_multiplier=2, name="depthwise")(x),
        layers.Conv1DTranspose(4, 3, padding="same", strides=2, name="transpose")(x),
    ]
    pools = (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
    pooled = [pools[index % 2]()(branch) for index, branch in enumerate(branches)]
    pooled.append(layers.Flatten()(layers.MaxPooling1D(3, 2, padding="same")(x)))
    return keras.Model(tokens, layers.Dense(4, name="scores")(layers.Concatenate()(pooled)), name="sequences")


def convolutions() -> Any:
    """Every convolution of images with every padding, stride, dilation and number of groups that Keras allows."""
    image = keras.Input((11, 9, 4), name="image")
    branches = []

    def add(layer: Any) -> None:
        branches.append(layers.Activation("tanh")(layer(image)))

    for padding in ("valid", "same"):
        add(layers.Conv2D(4, 3, padding=padding, name=f"plain_{padding}"))
        add(layers.Conv2D(4, (2, 3), padding=padding, strides=(2, 3), name=f"strides_{padding}"))
        add(layers.Conv2D(4, 3, padding=padding, dilation_rate=(2, 3), name=f"dilated_{padding}"))
        add(layers.Conv2D(4, 3, padding=padding, strides=2, groups=2, name=f"groups_{padding}"))
        add(layers.Conv2D(6, 1, padding=padding, strides=2, use_bias=False, name=f"pointwise_{padding}"))
        add(layers.SeparableConv2D(4, 3, padding=padding, strides=2, depth_multiplier=2, name=f"separable_{padding}"))
        add(layers.SeparableConv2D(4, 3, padding=padding, dilation_rate=2, name=f"separable_dilated_{padding}"))
        add(layers.DepthwiseConv2D(3, padding=padding, depth_multiplier=2, name=f"depthwise_{padding}"))
        add(layers.DepthwiseConv2D((2, 2), padding=padding, strides=2, name=f"depthwise_strides_{padding}"))
        add(layers.DepthwiseConv2D(3, padding=padding, dilation_rate=2, name=f"depthwise_dilated_{padding}"))
        add(layers.Conv2DTranspose(4, 3, padding=padding, name=f"transpose_{padding}"))
        add(layers.Conv2DTranspose(4, 3, padding=padding, strides=2, name=f"transpose_strides_{padding}"))
        add(layers.Conv2DTranspose(4, (2, 3), padding=padding, strides=(3, 1), name=f"transpose_uneven_{padding}"))
    add(layers.Conv2DTranspose(4, 3, strides=2, output_padding=1, padding="same", name="transpose_output_padding"))
    pooled = [layers.GlobalAveragePooling2D()(branch) for branch in branches]
    for padding in ("valid", "same"):
        first = branches[0]
        pooled.append(layers.Flatten()(layers.AveragePooling2D(3, 2, padding=padding)(first)))
        pooled.append(layers.Flatten()(layers.MaxPooling2D((2, 3), padding=padding)(first)))
    pooled.append(layers.GlobalMaxPooling2D()(branches[0]))
    scores = layers.Dense(4, name="scores")(layers.Concatenate()(pooled))
    return keras.Model(image, scores, name="convolutions")


def training_mode() -> Any:
    return keras.Sequential(
        [
            keras.Input((12, 12, 3), name="image"),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(),
            layers.SpatialDropout2D(0.2, seed=5, name="spatial_dropout"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.BatchNormalization(name="norm_2", momentum=0.9),
            layers.GaussianNoise(0.1, seed=6, name="noise"),
            layers.Activation("silu"),
            layers.Flatten(),
            layers.Dropout(0.5, seed=7, name="dropout"),
            layers.Dense(4, name="scores"),
        ],
        name="net",
    )
