"""Zeros that take no memory until they are written: the system gives each page when it is first touched."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["untouched_zeros"]

_FEWEST_BYTES = 1 << 16
"""What is smaller is not worth pages of its own."""
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Of each size in bytes. Not every dtype can be handed over as it is, and zero has the same bits in all of them."""


def untouched_zeros(shape: Sequence[int], dtype: Any) -> Any:
    """A tensor of zeros, as `tf.zeros` makes it. A variable that starts as one takes memory once it is assigned.

    Args:
        shape: Its shape.
        dtype: Its dtype, as TensorFlow takes it.
    """
    dtype = tf.as_dtype(dtype)
    unsigned = _UNSIGNED.get(dtype.size)
    size = math.prod(shape) * dtype.size
    if unsigned is None or size < _FEWEST_BYTES or not (dtype.is_floating or dtype.is_integer):
        return tf.zeros(shape, dtype)
    # Not numpy's: that takes memory which was in use before where it can, and writes the zeros.
    memory = np.frombuffer(_map(size), unsigned).reshape(shape)
    zeros = tf.experimental.dlpack.from_dlpack(memory.__dlpack__())
    return zeros if dtype.as_numpy_dtype is unsigned else tf.bitcast(zeros, dtype)


def _map(size: int) -> mmap.mmap:
    """Pages of this process alone."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
