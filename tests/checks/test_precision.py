from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from graphfreeze.checks.precision import computed_roundoffs, read_roundoffs

from .functional import named_graph

X, Y = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
SINGLE, HALF, BRAIN = 2.0**-24, 2.0**-11, 2.0**-8


def test_a_cast_counts_and_what_is_between() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        masked = x * tf.constant([1.0, 0, 1]) + tf.stop_gradient(tf.constant([0.0, 2, 0]))
        return [tf.cast(tf.transpose(masked), tf.float16), tf.tanh(y)]

    named = named_graph(function, {"x": X, "y": Y})
    assert read_roundoffs(named) == {"x": HALF, "y": SINGLE}
    assert computed_roundoffs(named) == {"result_0": HALF, "result_1": SINGLE}


def test_what_is_made_of_an_input_does_not_count_as_the_input() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.cast(tf.cast(tf.tanh(x), tf.bfloat16), tf.float32) @ tf.transpose(x), x]

    named = named_graph(function, {"x": X})
    assert read_roundoffs(named) == {"x": SINGLE}
    assert computed_roundoffs(named) == {"result_0": BRAIN, "result_1": SINGLE}


def test_the_coarsest_of_several_uses() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.cast(x, tf.float16), tf.cast(x, tf.bfloat16), tf.cast(x, tf.float64), tf.cast(x, tf.int32)]

    named = named_graph(function, {"x": X})
    assert read_roundoffs(named) == {"x": BRAIN}
    # float64 numbers made of float32 ones are no better than these.
    assert computed_roundoffs(named) == {"result_0": HALF, "result_1": BRAIN, "result_2": SINGLE, "result_3": SINGLE}


def test_loops_and_branches() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        def body(i: Any, total: Any) -> tuple[Any, Any]:
            return i + 1, total + tf.cast(tf.cast(x, tf.float16), tf.float32)

        looped = tf.while_loop(lambda i, _: tf.reduce_sum(x) < tf.cast(i, tf.float32), body, [0, tf.zeros_like(x)])[1]
        chosen = tf.cond(y[0, 0] > 0, lambda: tf.cast(tf.cast(y, tf.bfloat16), tf.float32), lambda: y)
        return [looped, chosen]

    named = named_graph(function, {"x": X, "y": Y})
    assert read_roundoffs(named) == {"x": HALF, "y": BRAIN}
    assert computed_roundoffs(named) == {"result_0": HALF, "result_1": BRAIN}
