"""Tiny Keras 2 models with the layers that come back in ways of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras

__all__ = ["MODELS", "Scale", "inputs"]

layers = tf_keras.layers


@tf_keras.utils.register_keras_serializable(package="tests")
class Scale(tf_keras.layers.Layer):
    """A layer whose class is registered, so that Keras can build it anew."""

    def build(self, _shape: Any) -> None:
        self.factor = self.add_weight(name="factor", shape=(3,), initializer="ones")

    def call(self, x: Any) -> Any:
        return x * self.factor


def image() -> Any:
    """Convolution with both kinds of regularisers, batch normalization, a registered layer; compiled and trained."""
    source = tf_keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(3, 3, name="conv", kernel_regularizer="l2", activity_regularizer="l1")(source)
    x = layers.BatchNormalization(name="bn")(x)
    x = Scale(name="scale")(layers.Flatten()(layers.MaxPooling2D()(x)))
    model = tf_keras.Model(source, layers.Dense(2, name="out")(x), name="net")
    model.compile("adam", "mean_squared_error", metrics=["mae"])
    model.train_on_batch(inputs("image"), np.zeros((5, 2), np.float32))
    return model


def sequence() -> Any:
    """Wrappers, recurrence, attention and a nested model."""
    source = tf_keras.Input((3, 2), name="sequence")
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True), name="both")(source)
    x = layers.TimeDistributed(layers.Dense(2), name="each")(x)
    x = layers.MultiHeadAttention(1, 2, name="attention")(x, x)
    inner = [tf_keras.Input((3, 2)), layers.Dense(2, activation="relu", name="inner"), layers.BatchNormalization()]
    x = layers.GRU(2, name="gru")(tf_keras.Sequential(inner, name="nested")(x))
    return tf_keras.Model(source, layers.Dense(1, name="out")(x), name="net")


def masked() -> Any:
    """An embedding that makes a mask for a recurrent layer, which only its Python code can do."""
    found = [tf_keras.Input((3,), name="tokens"), layers.Embedding(5, 2, mask_zero=True, name="embedding")]
    return tf_keras.Sequential([*found, layers.GRU(2, name="gru"), layers.Dense(1, name="out")], name="net")


def averaged() -> Any:
    """An embedding whose mask says what is to be averaged: no operation of the graph fails without it."""
    found = [tf_keras.Input((3,), name="tokens"), layers.Embedding(5, 2, mask_zero=True, name="embedding")]
    return tf_keras.Sequential([*found, layers.GlobalAveragePooling1D(), layers.Dense(1, name="out")], name="net")


class Subclassed(tf_keras.Model):
    """A model of a class that nobody registered, with a weight of its own."""

    def __init__(self) -> None:
        super().__init__(name="net")
        self.hidden = layers.Dense(3, name="hidden")
        self.scale = self.add_weight(name="scale", shape=(3,), initializer="ones")

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.hidden(x) * self.scale


def subclassed() -> Any:
    model = Subclassed()
    model(inputs("subclassed"))
    return model


def _save(make: Callable[[], Any], path: Path) -> None:
    tf_keras.utils.set_random_seed(1)
    make().save(path, save_format="tf")


MODELS: dict[str, Callable[[Path], None]] = {
    make.__name__: lambda path, make=make: _save(make, path)  # type: ignore[misc]  # a lambda has no types to give
    for make in (image, sequence, masked, averaged, subclassed)
}
"""Model name -> what saves it at a path."""


def inputs(name: str) -> np.ndarray[Any, Any]:
    """A batch for the model of that name."""
    shape = {"image": (5, 4, 4, 2), "sequence": (5, 3, 2), "subclassed": (5, 4)}[name]
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)
