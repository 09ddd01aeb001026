"""Models that compute in another precision than float32: mixed with float16 or bfloat16, or float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tools.coverage_cases.case import Case, integers

__all__ = ["precision_cases"]

L = keras.layers
_POLICIES = ("mixed_float16", "mixed_bfloat16", "float64")


def precision_cases() -> list[Case]:
    """Each model with each policy."""
    return [
        Case("precision", f"{name} {policy}", _with(make, policy), inputs={"words": integers(11)})
        for name, make in _MODELS.items()
        for policy in _POLICIES
    ]


def _with(make: Callable[[], Any], policy: str) -> Callable[[], Any]:
    def build() -> Any:
        before = keras.mixed_precision.dtype_policy()
        keras.mixed_precision.set_dtype_policy(policy)
        try:
            return make()
        finally:
            keras.mixed_precision.set_dtype_policy(before)

    return build


def _dense() -> Any:
    x = keras.Input((6,), name="x")
    return keras.Model(x, L.Dense(3)(L.Dropout(0.3, seed=1)(L.Dense(8, "gelu")(x))), name="model")


def _convolutional() -> Any:
    x = keras.Input((12, 12, 3), name="x")
    h = L.Conv2D(6, 3, padding="same", activation="relu")(x)
    h = L.SeparableConv2D(8, 3, strides=2)(L.BatchNormalization()(h))
    return keras.Model(x, L.Dense(3)(L.GlobalAveragePooling2D()(L.MaxPooling2D()(h))), name="model")


def _attention() -> Any:
    words = keras.Input((7,), name="words", dtype="int32")
    h = L.Embedding(11, 8)(words)
    h = L.LayerNormalization()(L.Add()([h, L.MultiHeadAttention(2, 4)(h, h)]))
    return keras.Model(words, L.Dense(3, "softmax")(h), name="model")


def _recurrent() -> Any:
    x = keras.Input((5, 4), name="x")
    return keras.Model(x, L.Dense(3)(L.GRU(6)(L.LSTM(6, return_sequences=True)(x))), name="model")


_MODELS = {"dense": _dense, "convolutional": _convolutional, "attention": _attention, "recurrent": _recurrent}
