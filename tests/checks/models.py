"""Tiny exported models, one for each kind of training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

__all__ = ["MODELS", "Sample"]

layers = keras.layers


@dataclass(frozen=True)
class Sample:
    """A model, its export, and a selector that freezes a part of it.

    Attributes:
        build: Makes its layers, less the last.
        input_shape: The shape of one example of `x`.
        selector: Names elements of one of its kernels.
        training: Whether an endpoint `train` runs the layers in training mode.
    """

    build: Callable[[], list[Any]]
    input_shape: tuple[int, ...]
    selector: str
    training: bool = False
    dtype: str = "float32"
    loss: str = "sparse_categorical_crossentropy:from_logits=true"

    @property
    def endpoint(self) -> str:
        return "train" if self.training else "serve"

    def export(self, path: Path) -> Path:
        keras.utils.set_random_seed(0)
        inputs = keras.Input(self.input_shape, dtype=self.dtype, name="x")
        model = keras.Sequential([inputs, *self.build(), layers.Dense(3, name="scores")], name="net")
        archive = keras.export.ExportArchive()
        archive.track(model)
        spec = [tf.TensorSpec((None, *self.input_shape), self.dtype, name="x")]
        archive.add_endpoint("serve", lambda x: model(x, training=False), spec)
        if self.training:
            archive.add_endpoint("train", lambda x: model(x, training=True), spec)
        archive.write_out(str(path), verbose=False)
        return path


def _mlp() -> list[Any]:
    return [layers.Dense(8, "tanh", name="hidden"), layers.Dropout(0.25, seed=3)]


def _normalised() -> list[Any]:
    return [layers.Dense(8, name="hidden"), layers.BatchNormalization(), layers.ReLU()]


def _lstm() -> list[Any]:
    return [layers.LSTM(4, name="lstm")]


def _embedding() -> list[Any]:
    return [layers.Embedding(10, 4, name="table"), layers.GlobalAveragePooling1D()]


def _cnn() -> list[Any]:
    convolution = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    return [convolution, layers.MaxPooling2D(), layers.Flatten()]


def _several_reads() -> list[Any]:
    """Each step of time reads the kernel again, and the gradients of the reads are summed."""
    return [layers.TimeDistributed(layers.Dense(5, "tanh", name="step")), layers.GlobalAveragePooling1D()]


class Scaled(keras.layers.Layer):
    """Multiplies by one number, which trains."""

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor


def _scaled() -> list[Any]:
    return [layers.Dense(8, "tanh", name="hidden"), Scaled()]


def _mixed(precision: str) -> Callable[[], list[Any]]:
    def build() -> list[Any]:
        policy = f"mixed_{precision}"
        convolution = layers.Conv2D(4, 3, activation="tanh", dtype=policy, name="conv")
        return [convolution, layers.Flatten(dtype=policy), layers.Dense(8, "tanh", dtype=policy, name="hidden")]

    return build


MODELS: dict[str, Sample] = {
    "mlp": Sample(_mlp, (6,), "**/hidden/kernel[:, 0:2]", training=True),
    "normalised": Sample(_normalised, (6,), "**/hidden/kernel[0]", training=True),
    "lstm": Sample(_lstm, (5, 3), "**/lstm_cell/kernel"),
    "embedding": Sample(_embedding, (5,), "**/table/embeddings[[1, 4]]", dtype="int32"),
    "several_reads": Sample(_several_reads, (6, 8), "**/step/kernel[0]"),
    "cnn": Sample(_cnn, (8, 8, 2), "**/conv/kernel[:, :, 0, 1]"),
    "scaled": Sample(_scaled, (6,), "**/hidden/kernel[0]"),
    "mixed_float16": Sample(_mixed("float16"), (6, 6, 2), "**/hidden/kernel where w < 0"),
    "mixed_bfloat16": Sample(_mixed("bfloat16"), (6, 6, 2), "**/hidden/kernel where w < 0"),
}
