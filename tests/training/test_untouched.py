"""Zeros that take no memory until they are written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.training.untouched import untouched_zeros

LARGE = (1000, 10000)


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (300, 70)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64"])
def test_they_are_those_of_tensorflow(dtype: str, shape: tuple[int, ...]) -> None:
    zeros, expected = untouched_zeros(shape, dtype), tf.zeros(shape, dtype)
    assert zeros.dtype == expected.dtype
    assert zeros.shape == expected.shape
    assert zeros.numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_variable_that_starts_as_one_is_written_alone(dtype: str) -> None:
    zeros = untouched_zeros((300, 700), dtype)
    first, second = tf.Variable(zeros), tf.Variable(zeros)

    @tf.function
    def step() -> None:
        first.assign_add(tf.ones_like(first))
        first.scatter_nd_update([[3, 4]], tf.constant([7], dtype))

    step()
    step()
    expected = np.full((300, 700), 2, np.float32)
    expected[3, 4] = 7
    np.testing.assert_array_equal(first.numpy().astype(np.float32), expected)
    for untouched in (second, zeros):
        assert not untouched.numpy().any()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_they_take_no_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])

    variables = [tf.Variable(untouched_zeros(LARGE, "float32"))]
    before = resident()
    variables += [tf.Variable(untouched_zeros(LARGE, dtype)) for dtype in ("float32", "bfloat16") for _ in range(3)]
    assert (resident() - before) * 4096 < 4 << 20
    assert variables[-1].shape == LARGE
