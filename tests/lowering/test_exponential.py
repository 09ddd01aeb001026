"""Exponentials, logarithms, trigonometric and special functions against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.uniform(0.1, 3, shape)


def inside(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.uniform(-0.9, 0.9, shape)


def test_exponentials_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        powers = [tf.pow(y, x), y**2, y**3, y**-1.5, tf.math.xlogy(x, y)]
        roots = [tf.sqrt(y), tf.math.rsqrt(y), tf.math.reciprocal(y)]
        return [tf.exp(x), tf.math.expm1(x), tf.math.log(y), tf.math.log1p(y), *powers, *roots]

    check(gradients(function), {"x": Argument((None, 3, 4)), "y": Argument((None, 3, 4), make=positive)})


def test_small_and_extreme_arguments() -> None:
    tiny = [0.0, 1e-8, -1e-8, 1e-5, -1e-5, 0.3, -0.7, 1e-30]

    def function(x: Any, large: Any) -> list[Any]:
        # Each result on a scale of its own, so that what is lost near zero shows.
        near = [tf.math.expm1(x), tf.math.log1p(x), tf.sinh(x), tf.asinh(x), tf.atanh(x)]
        near = [value for result in near for value in tf.unstack(result, axis=1)]
        return [*near, tf.math.expm1(-large), 1 / tf.math.log1p(large), tf.exp(tf.math.log1p(-tf.ones_like(x)))]

    large = Argument((None, 3), make=lambda rng, shape: np.resize([1e3, 50.0, np.inf], shape))
    check(function, {"x": Argument((None, 8), make=lambda rng, shape: np.resize(tiny, shape)), "large": large})


def test_trigonometric_functions_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        waves = [tf.sin(x), tf.cos(x), tf.tan(y)]
        return [*waves, tf.sinh(x), tf.cosh(x), tf.tanh(x), tf.asinh(x), tf.acosh(tf.abs(x) + 1.2), tf.atanh(y)]

    check(gradients(function), {"x": Argument((None, 3, 4)), "y": Argument((None, 3, 4), make=inside)})


def test_inverse_trigonometric_functions_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [tf.asin(y), tf.acos(y), tf.atan(x), tf.atan2(x, y)]

    operands = {"x": Argument((None, 3, 4)), "y": Argument((None, 3, 4), make=inside)}
    check(gradients(function), operands, precisions=["float32"])


def test_error_function_over_its_whole_range() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.math.erf(x), tf.math.erfc(x), 0.5 * x * tf.math.erfc(-x * 0.7071067811865476)]

    grid = Argument((None, 41), make=lambda rng, shape: np.resize(np.linspace(-8, 8, 41) + 0.001, shape))
    check(gradients(function), {"x": grid})
    tails = Argument((None, 6), make=lambda rng, shape: np.resize([0.5, 0.9, 1.3, 2.9, 5.0, 10.0], shape))
    check(lambda x: tf.unstack(tf.math.erfc(x), axis=1), {"x": tails}, precisions=["float64"])


def test_inverse_error_function() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.math.erfinv(x), tf.math.ndtri((x + 1) / 2)]

    grid = Argument((None, 30), make=lambda rng, shape: np.resize(np.linspace(-0.95, 0.951, 30), shape))
    check(gradients(function), {"x": grid}, precisions=["float32"])
