"""In which directions the parameters are moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_ELEMENTS", "draw_directions"]

MOST_ELEMENTS = 8
"""A parameter of no more trained elements is moved in each of them."""


def draw_directions(
    shape: tuple[int, ...], mask: npt.NDArray[np.bool_] | None, rng: np.random.Generator
) -> Iterator[npt.NDArray[Any]]:
    """Directions of length 1 that leave frozen elements alone: each element where there are few, then at random.

    The slope along a random one is, in the root of the mean square, that of an element.

    Args:
        shape: The parameter's shape.
        mask: Which elements train, broadcastable; None where all do.
        rng: Where they come from.
    """
    trained = np.broadcast_to(True if mask is None else mask, shape)
    places = np.argwhere(trained)
    if len(places) <= MOST_ELEMENTS:
        for place in places:
            direction = np.zeros(shape)
            direction[tuple(place)] = 1.0
            yield direction
    while True:
        direction = rng.normal(size=shape) * trained
        yield direction / np.linalg.norm(direction)
