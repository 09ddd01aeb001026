"""Determinants, Cholesky's factors and triangular systems against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

SQUARE = Argument((None, 4, 4))
ROUNDED = {"float32": 2e-5, "float64": 1e-12}
"""The matrices are not well-conditioned: a rounding is some ten times larger in the result."""


def positive(x: Any) -> Any:
    return tf.matmul(x, x, transpose_b=True) + 2 * tf.eye(4, dtype=x.dtype)


def test_cholesky_and_triangular_systems_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        factor, upper = tf.linalg.cholesky(positive(x)), x + 3 * tf.eye(4, dtype=x.dtype)
        solved = [tf.linalg.triangular_solve(factor, y), tf.linalg.triangular_solve(factor, y, adjoint=True)]
        return [factor, *solved, tf.linalg.triangular_solve(upper, y, lower=False)]

    check(gradients(function), {"x": SQUARE, "y": Argument((None, 4, 2))}, tolerance=ROUNDED)


def test_determinants_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.linalg.det(x), *tf.linalg.slogdet(x), tf.linalg.logdet(positive(x))]

    check(gradients(function), {"x": SQUARE}, tolerance=ROUNDED)


def test_determinants_of_orders_and_of_singular_matrices() -> None:
    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        made = np.stack([np.eye(5)[rng.permutation(5)] for _ in range(shape[0])])
        made[0, 2] = 0
        made[1] = 0
        return made

    check(lambda x: [tf.linalg.det(x), tf.linalg.slogdet(x).sign], {"x": Argument((None, 5, 5), make=make)})


def test_large_matrices_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="matrices of 33 rows; up to 32"):
        lower(tf.linalg.cholesky, {"x": Argument((None, 33, 33))})
