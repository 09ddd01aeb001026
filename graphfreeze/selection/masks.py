"""Masks in the smallest shape that broadcasts to the variable's."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["broadcast_count", "frozen_only", "smallest_broadcastable"]


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


def broadcast_count(mask: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> int:
    """How many elements are true once the mask is broadcast to the shape, without doing so."""
    elements = int(np.prod(shape, dtype=np.int64))
    return int(np.count_nonzero(mask)) * (elements // mask.size) if mask.size else 0


def frozen_only(value: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """The elements of a value where the mask is false, in row-major order.

    Args:
        value: The value.
        mask: Of the same rank, broadcastable to its shape.
    """
    varies = [axis for axis, size in enumerate(mask.shape) if size > 1]
    if not varies:
        return value.reshape(-1)[: 0 if mask.any() else None]
    if len(varies) == 1:
        # Whole rows or columns: far fewer indices than elements.
        return np.compress(~mask.reshape(-1), value, axis=varies[0]).reshape(-1)
    return value[~np.broadcast_to(mask, value.shape)]
