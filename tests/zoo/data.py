"""Random inputs for the models of the zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Inputs", "images", "vectors", "words"]

Array = npt.NDArray[Any]
Inputs = Callable[[np.random.Generator, int], Array]
"""Makes the inputs of a batch of a size."""


def vectors(length: int) -> Inputs:
    """Normal numbers."""
    return lambda random, batch: random.normal(size=(batch, length)).astype(np.float32)


def images(height: int, width: int, channels: int = 3, scale: float = 1.0) -> Inputs:
    """Images of random blocks, which differ from each other at every depth of a network as photographs do."""

    def make(random: np.random.Generator, batch: int) -> Array:
        coarse = random.uniform(size=(batch, -(-height // 8), -(-width // 8), channels))
        blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
        fine = random.uniform(size=(batch, height, width, channels))
        return (scale * (0.75 * blocks + 0.25 * fine)).astype(np.float32)

    return make


def words(vocabulary: int, length: int) -> Inputs:
    """Sequences that end in padding."""

    def make(random: np.random.Generator, batch: int) -> Array:
        tokens = random.integers(1, vocabulary, (batch, length))
        tokens[np.arange(length) >= random.integers(length // 2, length + 1, batch)[:, None]] = 0
        return tokens.astype(np.int32)

    return make
