"""Comparisons, logic and selection against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

DTYPES = ["float32", "float64", "int32", "int64", "uint8", "uint32", "uint64", "int8", "int16", "uint16"]


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 4, shape)


@pytest.mark.parametrize("dtype", DTYPES)
def test_comparisons_and_selection(dtype: str) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        compared = [x == y, x != y, x < y, x <= y, x > y, x >= y]
        return [*compared, tf.where(x < y, x, y), tf.where(x == y, x, tf.zeros((), x.dtype))]

    operands = {"x": Argument((None, 6), dtype, make=ties), "y": Argument((6,), dtype, make=ties)}
    check(function, operands, precisions=["float32"])


def test_logic() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        chosen = [tf.where(x, y, tf.logical_not(y)), tf.where(x[:, :1], x, y)]
        return [x & y, x | y, tf.logical_not(x), tf.math.logical_xor(x, y), x == y, x != y, *chosen]

    check(function, {"x": Argument((None, 5), "bool"), "y": Argument((None, 5), "bool")}, precisions=["float32"])


def test_what_is_not_finite() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.math.is_nan(x), tf.math.is_inf(x), tf.math.is_finite(x)]

    values = [np.nan, np.inf, -np.inf, 0.0, 1.0, -2.0]
    check(function, {"x": Argument((None, 7), make=lambda rng, shape: np.resize(values, shape))})


def test_selection_with_gradients() -> None:
    def function(x: Any, y: Any, rows: Any, scalar: Any) -> list[Any]:
        by_row = tf.raw_ops.Select(condition=rows, x=x, y=y)
        by_scalar = tf.raw_ops.Select(condition=scalar, x=x, y=2 * y)
        return [tf.where(x > y, x, y), tf.where(rows[:, None, None], x, 1.0), by_row, by_scalar]

    operands = {
        "x": Argument((None, 3, 4)),
        "y": Argument((None, 3, 4)),
        "rows": Argument((None,), "bool"),
        "scalar": Argument((), "bool"),
    }
    check(gradients(function), operands)
