"""Zeros that take no memory until they are written: the system gives each page when it is first touched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["untouched_zeros"]

_ALIGNMENT = 64
"""In bytes: TensorFlow copies what begins elsewhere."""
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
    elements = math.prod(shape)
    if unsigned is None or not elements or not (dtype.is_floating or dtype.is_integer) or dtype.is_quantized:
        return tf.zeros(shape, dtype)
    memory = np.zeros(elements + _ALIGNMENT // dtype.size, unsigned)
    start = -memory.ctypes.data % _ALIGNMENT // dtype.size
    zeros = tf.experimental.dlpack.from_dlpack(memory[start : start + elements].reshape(shape).__dlpack__())
    return zeros if dtype.as_numpy_dtype is unsigned else tf.bitcast(zeros, dtype)
