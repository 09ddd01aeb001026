"""Masks in the smallest shape that broadcasts to the variable's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["smallest_broadcastable"]


def smallest_broadcastable(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask with size 1 along each axis on which it does not vary; the rank stays.

    Args:
        mask: bool, of any shape without an empty axis.
    """
    for axis in range(mask.ndim):
        if mask.shape[axis] == 1:
            continue
        # A bool array does not vary along an axis where "all" equals "any".
        lowest = np.logical_and.reduce(mask, axis=axis, keepdims=True)
        if np.array_equal(lowest, np.logical_or.reduce(mask, axis=axis, keepdims=True)):
            mask = lowest
    return mask
