"""The logarithm of the gamma function and its derivative against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients, lower, session

POSITIVE = np.concatenate([np.geomspace(1e-6, 1e6, 400), np.linspace(0.01, 12, 600), [0.9, 1.0, 2.0, 3.0, 7.0, 8.0]])
NEGATIVE = -np.linspace(0.013, 20.37, 700)


def run(function: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    _, proto = lower(function, {"x": Argument((None,))}, x.dtype.name)
    (found,) = session(proto).run(None, {"x": x})
    return np.asarray(found)


def exact(function: Any, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(function(x.astype(np.float64)))


def test_with_gradients() -> None:
    def grid(low: float, high: float) -> Argument:
        return Argument((None, 12), make=lambda rng, shape: rng.uniform(low, high, shape))

    def function(*x: Any) -> list[Any]:
        return [tf.math.lgamma(each) for each in x]

    ranges = {"a": grid(0.02, 1), "b": grid(1.2, 2.5), "c": grid(3, 11), "d": grid(20, 90), "e": grid(-0.9, -0.1)}
    check(gradients(function), ranges | {"f": grid(-4.9, -4.1)}, tolerance={"float32": 4e-6})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_logarithm_to_a_few_units_in_the_last_place(dtype: str) -> None:
    precision = np.finfo(dtype).eps
    x = POSITIVE.astype(dtype)
    expected = exact(tf.math.lgamma, x)
    error = np.abs(run(tf.math.lgamma, x) - expected) / np.maximum(np.abs(expected), np.finfo(dtype).tiny)
    assert error.max() < 8 * precision
    x = NEGATIVE.astype(dtype)
    expected = exact(tf.math.lgamma, x)
    terms = np.maximum(np.abs(expected), np.abs(exact(tf.math.lgamma, -x))) + 1
    assert (np.abs(run(tf.math.lgamma, x) - expected) / terms).max() < 8 * precision


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_derivative_to_a_few_units_in_the_last_place(dtype: str) -> None:
    for x in (POSITIVE.astype(dtype), NEGATIVE.astype(dtype)):
        expected = exact(tf.math.digamma, x)
        error = np.abs(run(tf.math.digamma, x) - expected) / np.maximum(np.abs(expected), 1)
        assert error.max() < 12 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_where_it_has_no_number(dtype: str) -> None:
    x = np.array([0.0, -1.0, -2.0, -40.0, np.inf, np.nan, 1e30, -1e-20], dtype)
    for function in (tf.math.lgamma, tf.math.digamma):
        np.testing.assert_allclose(run(function, x), function(x).numpy(), 1e-5, err_msg=function.__name__)


def test_half_precision() -> None:
    def function(x: Any) -> list[Any]:
        narrow = tf.cast(x, tf.float16)
        return [tf.cast(of(narrow), tf.float32) for of in (tf.math.lgamma, tf.math.digamma)]

    grid = Argument((None, 20), make=lambda rng, shape: rng.uniform(-3, 9, shape))
    check(function, {"x": grid}, precisions=["float32"], tolerance={"float32": 1e-3})
