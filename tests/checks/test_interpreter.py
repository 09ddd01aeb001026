"""The interpreter against TensorFlow's own execution of the function that the graph was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks.interpreter import Interpreter

from .functional import named_graph, with_gradients

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def loop(x: Any) -> Any:
    return tf.while_loop(lambda i, v: i < 4, lambda i, v: (i + 1, tf.tanh(v) * 1.5), [0, x])[1]


def endless_unless_it_stops(x: Any) -> Any:
    return tf.while_loop(lambda v: tf.reduce_sum(tf.abs(v)) > 0.1, lambda v: (v / 2,), [x])[0]


def listed(x: Any) -> Any:
    return tf.map_fn(lambda row: tf.cumsum(row), x)


def branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: tf.cond(x[0, 0] > 0, lambda: x - 1, lambda: x - 2))


def switch(x: Any) -> Any:
    index = tf.cast(tf.reduce_sum(x), tf.int32)
    return tf.switch_case(index, [lambda: x + 1, lambda: x + 2, lambda: x + 3])


def gradients_of_a_loop(x: Any) -> Any:
    return with_gradients(lambda x: tf.reduce_sum(tf.scan(lambda a, row: tf.tanh(a * row), x) ** 2))(x)


FUNCTIONS = (loop, endless_unless_it_stops, listed, branch, switch, gradients_of_a_loop)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("x", [X, -X, X - X.sum() / X.size + 0.1], ids=["x", "-x", "sum near 1"])
def test_equals_the_function(function: Any, x: Any) -> None:
    named = named_graph(function, {"x": x})
    expected = tf.nest.flatten(tf.function(function, autograph=False)(tf.constant(x)))
    interpreter = Interpreter(named.graph)
    for _ in range(2):
        found = interpreter([tf.constant(x)])
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


def test_state_goes_in_and_comes_out() -> None:
    counter = tf.Variable(2.0, name="counter")

    def step(x: Any) -> Any:
        counter.assign_add(tf.reduce_sum(x))
        return counter * 10

    named = named_graph(step, {"x": X}, ["result"], variables=[counter])
    assert (named.inputs, named.outputs) == (["x", "counter"], ["result", "new/counter"])
    result, new = Interpreter(named.graph)([tf.constant(X), tf.constant(5.0)])
    np.testing.assert_allclose(new, 5 + X.sum(), rtol=1e-6)
    np.testing.assert_allclose(result, 10 * new)


def test_a_tensor_that_is_not_scalar_is_true_where_it_has_elements() -> None:
    # TensorFlow's rule, by which [0] is true.
    def function(x: Any) -> Any:
        then, other = (tf.function(lambda v, k=k: v + k).get_concrete_function(x) for k in (1.0, 2.0))
        return tf.raw_ops.StatelessIf(
            cond=tf.zeros((1,)), input=[x], Tout=[tf.float32], then_branch=then, else_branch=other
        )[0]

    (found,) = Interpreter(named_graph(function, {"x": X}).graph)([tf.constant(X)])
    np.testing.assert_array_equal(found, X + 1)
