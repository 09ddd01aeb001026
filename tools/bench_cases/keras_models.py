"""The models, built in Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from tools.bench_cases.catalogue import Model

__all__ = ["build"]


def build(model: Model) -> Any:
    """The Keras model, with random weights that are the same each time. Its output is logits."""
    keras.utils.set_random_seed(0)
    tokens = model.vocabulary is not None
    x = keras.Input(model.shape, name="x", dtype="int32" if tokens else "float32")
    return keras.Model(x, _BODIES[model.name](x, model), name=model.name)


def _small(x: Any, model: Model) -> Any:
    return layers.Dense(model.classes)(layers.Dense(16, activation="relu")(x))


def _mlp(x: Any, model: Model) -> Any:
    for units in (256, 128):
        x = layers.Dense(units, activation="relu")(x)
    return layers.Dense(model.classes)(x)


def _cnn(x: Any, model: Model) -> Any:
    for filters in (32, 64):
        x = layers.MaxPooling2D(2)(layers.Conv2D(filters, 3, activation="relu")(x))
    return layers.Dense(model.classes)(layers.Flatten()(x))


def _application(name: str) -> Callable[[Any, Model], Any]:
    def body(x: Any, model: Model) -> Any:
        make = getattr(keras.applications, name)
        return make(weights=None, input_shape=model.shape, classes=model.classes, classifier_activation=None)(x)

    return body


def _recurrent(layer: str) -> Callable[[Any, Model], Any]:
    return lambda x, model: layers.Dense(model.classes)(getattr(layers, layer)(64)(x))


def _transformer(x: Any, model: Model) -> Any:
    h = _embedding(x, model, 128)
    h = _encoder_block(h, heads=4, width=128, activation="relu")
    return layers.Dense(model.classes)(layers.GlobalAveragePooling1D()(h))


def _bert_tiny(x: Any, model: Model) -> Any:
    h = layers.LayerNormalization(epsilon=1e-12)(_embedding(x, model, 128))
    for _ in range(2):
        h = _encoder_block(h, heads=2, width=128, activation="gelu")
    pooled = layers.Dense(128, activation="tanh", name="pooler")(h[:, 0])
    return layers.Dense(model.classes)(pooled)


def _embedding(x: Any, model: Model, width: int) -> Any:
    assert model.vocabulary is not None
    return _Positions(name="positions")(layers.Embedding(model.vocabulary, width, name="tokens")(x))


class _Positions(layers.Layer):  # type: ignore[misc]
    """Adds a trained vector for each position."""

    def build(self, shape: Any) -> None:
        """Make the table."""
        self.table = self.add_weight(shape=shape[1:], initializer="uniform", name="embeddings")

    def call(self, h: Any) -> Any:
        """The sum."""
        return h + self.table


def _encoder_block(h: Any, *, heads: int, width: int, activation: str) -> Any:
    attended = layers.MultiHeadAttention(heads, width // heads)(h, h)
    h = layers.LayerNormalization(epsilon=1e-5)(h + attended)
    inner = layers.Dense(4 * width, activation=activation)(h)
    return layers.LayerNormalization(epsilon=1e-5)(h + layers.Dense(width)(inner))


_BODIES: dict[str, Callable[[Any, Model], Any]] = {
    "small": _small,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet50": _application("ResNet50"),
    "mobilenetv2": _application("MobileNetV2"),
    "efficientnetb0": _application("EfficientNetB0"),
    "lstm": _recurrent("LSTM"),
    "gru": _recurrent("GRU"),
    "transformer": _transformer,
    "bert_tiny": _bert_tiny,
}
