"""Random numbers: the same bits as TensorFlow's for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

SEED = {"seed": Argument((2,), "int32", high=2**31 - 1), "x": Argument((None, 3))}
EXACT = {"float32": 0.0, "float64": 0.0}


def _shape(x: Any) -> Any:
    return tf.shape(x)


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64], ids=lambda dtype: dtype.name)
def test_uniform_numbers_are_the_same_bits(dtype: Any) -> None:
    def function(seed: Any, x: Any) -> list[Any]:
        shapes = [_shape(x), [5], [2, 3, 4], [1]]
        return [tf.random.stateless_uniform(shape, seed, dtype=dtype) for shape in shapes]

    check(function, SEED, precisions=["float32"], tolerance=EXACT)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64, tf.uint32, tf.uint64], ids=lambda dtype: dtype.name)
def test_integers_are_the_same(dtype: Any) -> None:
    def function(seed: Any, x: Any) -> list[Any]:
        full = tf.random.stateless_uniform(_shape(x), seed, minval=None, maxval=None, dtype=dtype)
        ranges = [(0, 10), (5, 2**31 - 1)] if dtype.name[0] == "u" else [(0, 10), (-7, 2**31 - 1), (-3, -1)]
        if dtype.name[0] == "u":
            return [full]
        return [full, *(tf.random.stateless_uniform([7], seed, low, high, dtype) for low, high in ranges)]

    check(function, SEED, precisions=["float32"])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("draw", [tf.random.stateless_normal, tf.random.stateless_truncated_normal])
def test_normal_numbers_are_the_same(draw: Callable[..., Any], dtype: Any) -> None:
    def function(seed: Any, x: Any) -> list[Any]:
        return [draw(_shape(x), seed, dtype=dtype), draw([97], seed, mean=1.0, stddev=2.0, dtype=dtype)]

    # The bits are the same; their logarithm, sine and cosine are rounded by each library in its own way.
    check(function, SEED, precisions=["float32"], tolerance={"float32": 1e-6 if dtype == tf.float32 else 1e-14})


def test_dropout_masks_are_the_same() -> None:
    def function(seed: Any, x: Any) -> Any:
        return tf.nn.experimental.stateless_dropout(x, 0.4, seed, rng_alg="auto_select")

    check(function, SEED)


def test_generators_of_older_models() -> None:
    def function(seed: Any, x: Any) -> list[Any]:
        shape = _shape(x)
        uniform = tf.raw_ops.StatelessRandomUniform(shape=shape, seed=seed)
        integers = tf.raw_ops.StatelessRandomUniformInt(shape=shape, seed=seed, minval=-3, maxval=9)
        full = tf.raw_ops.StatelessRandomUniformFullInt(shape=shape, seed=seed, dtype=tf.int32)
        return [uniform, integers, full]

    check(function, SEED, precisions=["float32"], tolerance=EXACT)


def test_seeds_may_be_wide_or_negative() -> None:
    def function(seed: Any) -> list[Any]:
        return [tf.random.stateless_uniform([4], seed), tf.random.stateless_uniform([4], tf.cast(seed, tf.int32))]

    wide = Argument((2,), "int64", make=lambda rng, shape: rng.integers(-(2**60), 2**60, shape))
    check(function, {"seed": wide}, precisions=["float32"], tolerance=EXACT)
    assert np.iinfo(np.int64).max > 2**60


def test_generators_with_a_state() -> None:
    generator = tf.random.Generator.from_seed(5)
    generator.state.assign([11, -7, 12345])

    def function(x: Any) -> list[Any]:
        first = generator.uniform(_shape(x))
        return [first, generator.normal([3]), generator.uniform([2, 2], 0, 9, tf.int32), generator.uniform(_shape(x))]

    check(function, {"x": Argument((None, 3))}, precisions=["float32"], variables=[generator.state])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("alpha", [0.2, 1.0, 1.3, [0.1, 1.0, 30.0]], ids=str)
def test_gamma_numbers_are_the_same(alpha: Any, dtype: Any) -> None:
    def function(seed: Any, x: Any) -> Any:
        return tf.random.stateless_gamma(_shape(tf.tile(x, [40, 1])), seed, tf.constant(alpha, dtype), dtype=dtype)

    check(function, SEED, precisions=["float32"], tolerance={"float32": 1e-7 if dtype == tf.float32 else 1e-14})


def test_gamma_numbers_of_an_alpha_that_is_computed() -> None:
    def function(seed: Any, a: Any) -> list[Any]:
        each = tf.random.stateless_gamma([7, 4], seed, tf.ones([7, 4]) * 0.4, dtype=tf.float32)
        return [tf.random.stateless_gamma([50, 4], seed, tf.abs(a), dtype=tf.float32), each]

    arguments = {"seed": SEED["seed"], "a": Argument((4,), make=lambda rng, shape: [1.0, 0.3, 1.0, 2.5])}
    check(function, arguments, precisions=["float32"], tolerance={"float32": 1e-7})
