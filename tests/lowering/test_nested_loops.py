"""Gradients of loops in loops, of which one runs for as long as data say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

X = {"x": Argument((None, 3))}


def _loop_of_known_length_inside(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.while_loop(lambda j, b: j < 3, lambda j, b: (j + 1, tf.sin(b) * 0.8 + x * 0.1), (0, a))[1]

    return tf.while_loop(lambda i, a: tf.reduce_sum(tf.abs(a)) > 0.1 * tf.norm(x), body, (0, x), maximum_iterations=3)[
        1
    ]


def _halves(b: Any, least: Any) -> Any:
    """A loop that data end, after another number of iterations for each start."""
    return tf.while_loop(lambda j, v: tf.reduce_sum(tf.abs(v)) > least, lambda j, v: (j + 1, tf.sin(v) * 0.7), (0, b))[
        1
    ]


def _data_in_data(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, _halves(a + x, 0.3 * tf.cast(i + 1, x.dtype)) * x

    return tf.while_loop(lambda i, a: (i < 5) & (tf.reduce_sum(tf.abs(a)) < 20.0), body, (0, x))[1]


def _data_in_known(x: Any) -> Any:
    return tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, _halves(a * a + x, 0.3)), (0, x))[1]


def _data_in_scan(x: Any) -> Any:
    rows = tf.transpose(x)[:, :, None] * tf.ones([1, 1, 2], x.dtype)
    return tf.scan(lambda a, row: _halves(a + row, 0.5) * tf.sin(row), rows, tf.ones_like(rows[0]))


def _data_in_map(x: Any) -> Any:
    return tf.map_fn(lambda row: _halves(row, 0.5), tf.transpose(x))


def _sometimes_not_at_all(x: Any) -> Any:
    """Lists without any item, between others."""
    return tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, _halves(a, 0.9) + x * 0.2), (0, x))[1]


@pytest.mark.parametrize(
    "function",
    [_loop_of_known_length_inside, _data_in_data, _data_in_known, _data_in_scan, _data_in_map, _sometimes_not_at_all],
)
def test_gradients_of_loops_in_loops_that_data_end(function: Callable[..., Any]) -> None:
    check(gradients(function), X, tolerance={"float32": 1e-5, "float64": 1e-12})


def _known(function: Callable[[Any], Any], count: int = 2) -> Callable[[Any], Any]:
    """The function that many times, in a loop."""
    return lambda x: tf.while_loop(lambda i, a: i < count, lambda i, a: (i + 1, function(a)), (0, x))[1]


def _data(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function in a loop that data end."""

    def goes_on(i: Any, a: Any) -> Any:
        return (i < 4) & (tf.reduce_sum(tf.abs(a)) < 15.0)

    return lambda x: tf.while_loop(goes_on, lambda i, a: (i + 1, function(a * 0.9 + x * 0.1)), (0, x))[1]


def _wave(x: Any) -> Any:
    return tf.sin(x) * 0.9 + x * x * 0.01


def _data_in_sums_of_scan(x: Any) -> Any:
    rows = tf.reduce_mean(_data_in_scan(x)[:, :, 0], 0)
    return rows[:, None] * tf.constant(0.1, x.dtype) + x * 0.1


DEPTHS = {
    "known, known, known": _known(_known(_known(_wave)), 3),
    "four, known": _known(_known(_known(_known(_wave)))),
    "known, known, data": _known(_data_in_known, 3),
    "known, data, data": _known(_data_in_data),
    "known, data, known": _known(_data(_loop_of_known_length_inside)),
    "data, known, known": _data(_known(_known(_wave))),
    "data, known, data": _data(_data_in_known),
    "data, data, known": _data(_loop_of_known_length_inside),
    "data, data, data": _data(_data_in_data),
    "data, data, none": _data(_sometimes_not_at_all),
    "data, scan, data": _data(_data_in_sums_of_scan),
    "data, map, data": _data(lambda x: tf.transpose(_data_in_map(x)) * 0.5),
    "four, data in data": _data(_data(_data_in_data)),
    "four, data and known": _known(_data(_data_in_known)),
    "four, known in data": _data(_known(_known(_loop_of_known_length_inside))),
}


@pytest.mark.parametrize("depths", DEPTHS)
def test_gradients_of_loops_in_three_depths_and_four(depths: str) -> None:
    check(gradients(DEPTHS[depths]), X, tolerance={"float32": 1e-5, "float64": 1e-12})
