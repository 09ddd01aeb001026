"""Models of one input that layers follow one after the other: of tokens, or of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

__all__ = ["Make", "numbers", "tokens"]

Make = Callable[[], Any]
"""Makes a layer, or a model."""


def tokens(*layers: Make, length: int | None = 6) -> Make:
    """A model of sequences of tokens; their length may be open."""
    return _chain(layers, (length,), "int32")


def numbers(*layers: Make) -> Make:
    """A model of five numbers."""
    return _chain(layers, (5,), "float32")


def _chain(layers: tuple[Make, ...], shape: tuple[int | None, ...], dtype: str) -> Make:
    def model() -> Any:
        x = h = keras.Input(shape, dtype=dtype, name="x")
        for make in layers:
            h = make()(h)
        return keras.Model(x, h, name="model")

    return model
