"""TensorFlow's layout of a tensor, and the layout in which the artifact stores and feeds it.

That is the order of the axes. Where only some slices of a tensor are stored, `artifact.frozen` knows which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.manifest import StateEntry

__all__ = ["contiguous", "to_stored", "to_tensorflow"]


def to_stored(value: npt.NDArray[Any], entry: StateEntry) -> npt.NDArray[Any]:
    """Transpose a value (or a mask that broadcasts to it) from TensorFlow's layout to the stored one."""
    return contiguous(value if entry.permutation is None else np.transpose(value, entry.permutation))


def to_tensorflow(stored: npt.NDArray[Any], entry: StateEntry) -> npt.NDArray[Any]:
    """Undo `to_stored`."""
    if entry.permutation is None:
        return contiguous(stored)
    return contiguous(np.transpose(stored, np.argsort(entry.permutation)))


def contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in row-major order, little-endian, of the same rank (`numpy.ascontiguousarray` would make 0-d 1-d)."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<") if array.dtype.isbuiltin == 1 else None, order="C")
