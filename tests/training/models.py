"""Small Keras models whose training differs from their inference, and data for them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

__all__ = ["EXAMPLES", "PenalisesItsInput", "data_for", "everything", "masked_sequence", "two_outputs"]

EXAMPLES = 22
FEATURES = 5


class PenalisesItsInput(keras.layers.Layer):
    """Adds a term to the loss, in training and in inference alike."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def everything(*, penalty: bool = True) -> Any:
    """Regularisers, an activity regulariser, add_loss, dropout, noise and batch normalization; one output of 3."""
    x = keras.Input((FEATURES,), name="x")
    h = keras.layers.Dense(8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.05), name="first")(x)
    h = keras.layers.BatchNormalization(name="norm", momentum=0.8)(h)
    h = keras.layers.Dropout(0.4, name="drop")(h)
    h = keras.layers.Dense(
        6, activity_regularizer=keras.regularizers.L2(0.02), bias_regularizer=keras.regularizers.L1(0.1), name="second"
    )(h)
    if penalty:
        h = PenalisesItsInput(name="penalty")(h)
    h = keras.layers.GaussianNoise(0.1, name="noise")(h)
    h = keras.layers.ActivityRegularization(l1=0.01, name="activity")(h)
    return keras.Model(x, keras.layers.Dense(3, name="last")(h), name="everything")


def two_outputs() -> Any:
    """A regression of 3, a classification of 4 and an output that nobody trains."""
    x = keras.Input((FEATURES,), name="x")
    h = keras.layers.Dense(6, activation="tanh", kernel_regularizer="l2", name="trunk")(x)
    heads = [keras.layers.Dense(size, name=name)(h) for name, size in (("value", 3), ("label", 4), ("idle", 2))]
    return keras.Model(x, heads, name="two_outputs")


def masked_sequence() -> Any:
    """A sequence model whose mask reaches its output: fit counts the steps that are not padded."""
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    h = keras.layers.Embedding(7, 4, mask_zero=True, name="embedding")(tokens)
    h = keras.layers.LSTM(3, return_sequences=True, name="lstm")(h)
    return keras.Model(tokens, keras.layers.Dense(2, name="out")(h), name="masked_sequence")


def data_for(model: Any, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Inputs and targets by the names of the data contract, float32 and int64, with weights of the examples."""
    rng = np.random.default_rng(seed)
    if model.name == "masked_sequence":
        tokens = rng.integers(1, 7, (EXAMPLES, 6)).astype(np.int32)
        tokens[np.arange(6) >= rng.integers(2, 7, EXAMPLES)[:, None]] = 0
        return {"tokens": tokens, "y": rng.normal(size=(EXAMPLES, 6, 2)).astype(np.float32)}
    data: dict[str, npt.NDArray[Any]] = {"x": rng.normal(size=(EXAMPLES, FEATURES)).astype(np.float32)}
    if model.name == "two_outputs":
        data["y.value"] = rng.normal(size=(EXAMPLES, 3)).astype(np.float32)
        data["y.label"] = rng.integers(0, 4, EXAMPLES)
    else:
        data["y"] = rng.normal(size=(EXAMPLES, 3)).astype(np.float32)
    return data
