"""The bits of numbers against TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, lower, session

PAIRS = [("float32", "int32"), ("float32", "uint32"), ("float16", "int16"), ("float16", "uint16")]


def all_kinds(number: str) -> Any:
    """Zeros, powers of two and their neighbours, what is too small for a leading one, infinity, and any bits."""

    def make(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        info = np.finfo(number)
        powers = np.ldexp(1.0, np.arange(info.minexp - info.nmant, info.maxexp)).astype(number)
        some = np.array([0, np.inf, info.max, info.tiny, info.smallest_subnormal], number)
        near = np.concatenate([some, powers, np.nextafter(powers, number_of(0, number))])
        bits = rng.integers(0, 2**info.bits, 4000, np.uint64).astype(f"uint{info.bits}").view(number)
        found = np.concatenate([near, np.nextafter(powers, number_of(np.inf, number)), bits[~np.isnan(bits)]])
        return np.broadcast_to(np.concatenate([found, -found]), (shape[0], 2 * len(found)))

    return make


def number_of(value: float, number: str) -> Any:
    return np.dtype(number).type(value)


@pytest.mark.parametrize(("number", "whole"), PAIRS)
def test_bits_of_floats(number: str, whole: str) -> None:
    check(lambda x: tf.bitcast(x, whole), {"x": Argument((None, None), number, all_kinds(number))}, precisions=[number])


@pytest.mark.parametrize(("number", "whole"), PAIRS)
def test_floats_of_bits(number: str, whole: str) -> None:
    """They are compared by their bits, which tell zeros apart."""
    arguments = {"x": Argument((None, None), whole, lambda rng, shape: all_kinds(number)(rng, shape).view(whole))}
    concrete, proto = lower(lambda x: tf.bitcast(x, number), arguments, "float32")
    bits = arguments["x"].draw(np.random.default_rng(0), 2, 1, whole)
    (found,) = session(proto).run(None, {"x": bits})
    np.testing.assert_array_equal(found.view(whole), bits)
    np.testing.assert_array_equal(concrete(tf.constant(bits)).numpy().view(whole), bits)


@pytest.mark.parametrize(("number", "whole"), PAIRS)
def test_numbers_that_are_none(number: str, whole: str) -> None:
    to_bits = lower(lambda x: tf.bitcast(x, whole), {"x": Argument((None,), number)})[1]
    to_float = lower(lambda x: tf.bitcast(x, number), {"x": Argument((None,), whole)})[1]
    nan = np.abs(np.array([np.nan], number))
    np.testing.assert_array_equal(session(to_bits).run(None, {"x": nan})[0], nan.view(whole))
    bits = (np.array([np.inf, -np.inf], number).view(f"u{whole.removeprefix('u')}") + 1).view(whole)
    assert np.isnan(session(to_float).run(None, {"x": bits})[0]).all()


def few(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Many equal numbers, and zeros of both signs."""
    return rng.choice([-1.0, -0.0, 0.0, 1.0], shape)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("operation", [keras.ops.argmax, keras.ops.argmin])
def test_largest_and_smallest_of_keras(operation: Any, axis: int | None) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [operation(x, axis), operation(x, axis, keepdims=True), operation(y, axis)]

    check(function, {"x": Argument((None, 4, 5), make=few), "y": Argument((None, 4))})


def test_signs() -> None:
    check(lambda x: keras.ops.signbit(x), {"x": Argument((None, 9), "float32", few)}, precisions=["float32"])


def test_other_sizes_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="float16 or float32, are covered"):
        lower(lambda x: tf.bitcast(x, tf.int64), {"x": Argument((None,), "float64")})
