"""Masks in the smallest shape that broadcasts to the variable's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["broadcast_count", "frozen_only", "frozen_pieces", "same_bytes", "smallest_broadcastable"]

_PIECE_ELEMENTS = 1 << 20


def smallest_broadcastable(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask with size 1 along each axis on which it does not vary; the rank stays.

    Args:
        mask: bool, of any shape without an empty axis.
    """
    for axis in range(mask.ndim):
        if mask.shape[axis] == 1:
            continue
        if not np.array_equal(mask.take([0], axis), mask.take([-1], axis)):
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
        axis = varies[0]
        taken = np.flatnonzero(~mask.reshape(-1))
        if len(taken) and taken[-1] - taken[0] + 1 == len(taken):
            # A view, copied as a block.
            return value[(*[slice(None)] * axis, slice(int(taken[0]), int(taken[-1]) + 1))].reshape(-1)
        return np.take(value, taken, axis=axis).reshape(-1)
    return value[~np.broadcast_to(mask, value.shape)]


def frozen_pieces(value: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[Any]]:
    """What `frozen_only` gives, in consecutive pieces, so that of a large value little is in memory at a time.

    Args:
        value: The value; it may be mapped from a file.
        mask: Of the same rank, broadcastable to its shape.
    """
    rows = len(value) if value.ndim else 0
    if value.size <= _PIECE_ELEMENTS or not rows:
        yield frozen_only(value, mask)
        return
    step = rows * _PIECE_ELEMENTS // value.size
    if not step:
        for row in range(rows):
            yield from frozen_pieces(value[row], mask[row if len(mask) > 1 else 0])
        return
    for start in range(0, rows, step):
        part = slice(start, start + step)
        yield frozen_only(value[part], mask[part] if len(mask) > 1 else mask)


def same_bytes(left: Iterable[npt.NDArray[Any]], right: Iterable[npt.NDArray[Any]]) -> bool:
    """Whether pieces make up the same bytes as others, wherever they are cut."""
    a = b = np.empty(0, np.uint8)
    lefts, rights = iter(left), iter(right)
    while True:
        a, b = _further(a, lefts), _further(b, rights)
        size = min(len(a), len(b))
        if not size:
            return not len(a) and not len(b)
        if not np.array_equal(a[:size], b[:size]):
            return False
        a, b = a[size:], b[size:]


def _further(left: npt.NDArray[np.uint8], pieces: Iterator[npt.NDArray[Any]]) -> npt.NDArray[np.uint8]:
    """What is left of a piece, or else the bytes of the next one that has any."""
    while not len(left):
        piece = next(pieces, None)
        if piece is None:
            break
        left = np.ascontiguousarray(piece).reshape(-1).view(np.uint8)
    return left
