"""Arithmetic on sizes: what holds for large and odd ones alone is computed at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from graphfreeze.lowering.sizes import Sizes
from tests.lowering.conversion import Argument, check, lower

X = {"x": Argument((None, None, 3))}
SIZES = ((3, 5), (2, 9), (1, 1), (4, 4), (6, 2))


def _number(x: Any, number: Any) -> Any:
    return tf.cast(number, x.dtype) * x


def _smaller(x: Any) -> Any:
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    return [_number(x, tf.minimum(length, 4)), _number(x, tf.maximum(batch, length)), _number(x, tf.maximum(2, batch))]


def _compared(x: Any) -> Any:
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    flags = [length < 4, length <= 4, batch > length, batch >= 3, tf.equal(length, 1), tf.not_equal(batch, 2)]
    return [_number(x, flag) for flag in flags]


def _divided(x: Any) -> Any:
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    numbers = [length % 2, length // 4, (-length) % 2, (length + batch) // batch, batch * length % 3]
    return [_number(x, number) for number in numbers]


def _places(x: Any) -> Any:
    return tf.cast(tf.range(6) < tf.shape(x)[1], x.dtype)[:, None] * tf.reduce_sum(x)


def _branches(x: Any) -> Any:
    return tf.cond(tf.shape(x)[1] > 3, lambda: tf.sin(x), lambda: tf.cos(x))


@pytest.mark.parametrize("function", [_smaller, _compared, _divided, _places, _branches])
def test_small_and_even_sizes(function: Callable[..., Any]) -> None:
    check(function, X, sizes=SIZES)


def test_what_every_size_decides_leaves_nothing_to_run_time() -> None:
    def function(x: Any) -> Any:
        batch, length = tf.shape(x)[0], tf.shape(x)[1]
        numbers = [
            *(tf.maximum(length, 1), tf.minimum(batch, batch + length), length > 0, tf.equal(length, length + 1)),
            *((4 * length + 3) % 4, (4 * batch + 3) // 2, batch * length // length),
        ]
        return [_number(x, number) for number in numbers]

    proto = check(function, X, sizes=SIZES)
    assert not {node.op_type for node in proto.graph.node} & {"Max", "Min", "Mod", "Div", "Greater", "Equal"}


def test_shapes_that_no_size_decides_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="depends on values that are known only at run time"):
        lower(lambda x: x[:, : tf.minimum(tf.shape(x)[1], 4)], X)
    with pytest.raises(UnsupportedOperationError, match="or on which of two sizes is larger"):
        lower(lambda x: tf.ones([tf.minimum(tf.shape(x)[1], 4), 3]) * 2.0, X)


def test_least() -> None:
    sizes = Sizes.of_sequences().with_picked(1)
    batch, length, picked = (np.array(sizes.samples[name]) for name in ("batch", "length", "picked_0"))

    def least(number: Any) -> int | None:
        return sizes.least(tuple(number.tolist()))

    assert least(2 * batch * length + 3 * length - 4) == 1 and least(picked + 2 * batch) == 2
    assert least(length - batch) is None and least(length // 2) is None and least(0 * length + 7) == 7
