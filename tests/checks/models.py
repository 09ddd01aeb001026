"""Tiny exported models, one for each kind of training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

__all__ = ["MODELS", "Sample"]

_CROSSENTROPY = "sparse_categorical_crossentropy:from_logits=true"


@dataclass(frozen=True)
class Sample:
    """A model, its export, and a selector that freezes a part of it.

    Attributes:
        build: Makes the model.
        selector: Names elements of one of its kernels.
        training: Whether an endpoint `train` runs the layers in training mode.
    """

    build: Callable[[], Any]
    selector: str
    training: bool = False
    loss: str = _CROSSENTROPY

    @property
    def endpoint(self) -> str:
        return "train" if self.training else "serve"

    def export(self, path: Path) -> Path:
        keras.utils.set_random_seed(0)
        model = self.build()
        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = [tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype, name="x")]
        archive.add_endpoint("serve", lambda x: model(x, training=False), spec)
        if self.training:
            archive.add_endpoint("train", lambda x: model(x, training=True), spec)
        archive.write_out(str(path), verbose=False)
        return path


def _sequential(shape: tuple[int, ...], *layers: Any, dtype: str = "float32") -> Any:
    return keras.Sequential([keras.Input(shape, dtype=dtype, name="x"), *layers], name="net")


def _mlp() -> Any:
    layers = keras.layers
    return _sequential(
        (6,), layers.Dense(8, "tanh", name="hidden"), layers.Dropout(0.25, seed=3), layers.Dense(3, name="scores")
    )


def _normalised() -> Any:
    layers = keras.layers
    return _sequential(
        (6,), layers.Dense(8, name="hidden"), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3, name="scores")
    )


def _lstm() -> Any:
    return _sequential((5, 3), keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(3, name="scores"))


def _embedding() -> Any:
    layers = keras.layers
    pooled = layers.GlobalAveragePooling1D()
    return _sequential(
        (5,), layers.Embedding(10, 4, name="table"), pooled, layers.Dense(3, name="scores"), dtype="int32"
    )


def _cnn() -> Any:
    layers = keras.layers
    return _sequential(
        (8, 8, 2),
        layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(3, name="scores"),
    )


MODELS: dict[str, Sample] = {
    "mlp": Sample(_mlp, "**/hidden/kernel[:, 0:2]", training=True),
    "normalised": Sample(_normalised, "**/hidden/kernel[0]", training=True),
    "lstm": Sample(_lstm, "**/lstm_cell/kernel"),
    "embedding": Sample(_embedding, "**/table/embeddings[[1, 4]]"),
    "cnn": Sample(_cnn, "**/conv/kernel[:, :, 0, 1]"),
}
