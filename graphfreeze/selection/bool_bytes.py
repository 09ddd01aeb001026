"""Bools from files. numpy takes whatever byte is there, and its operations then disagree on what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["odd_bool"]


def odd_bool(array: npt.NDArray[Any]) -> int | None:
    """The first byte of an array of bools that is neither 0 nor 1. None where there is none, or they are no bools."""
    if array.dtype != np.bool_:
        return None
    numbers = array.view(np.uint8)
    if not array.size or numbers.max() <= 1:
        return None
    return int(numbers[numbers > 1][0])
