from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks.double_precision import SinglePrecisionError, promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.training.graph import Graph

from .functional import named_graph

X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def dtypes(graph: Graph) -> set[Any]:
    found = {edge.dtype for edge in [*graph.inputs, *graph.outputs]}
    for operation in graph.walk():
        found |= {edge.dtype for edge in [*operation.inputs, *operation.outputs]}
        found |= {edge.dtype for body in operation.bodies.values() for edge in [*body.inputs, *body.outputs]}
    return found


def run(graph: Graph, *arrays: Any) -> list[Any]:
    return [tensor.numpy() for tensor in Interpreter(graph)([tf.constant(array) for array in arrays])]


def looped(x: Any) -> Any:
    """A loop that collects, a constant, a cast each way, and half precision."""
    rows = tf.map_fn(lambda row: tf.tanh(row) * 0.1, x)
    half = tf.cast(tf.cast(rows, tf.float16), tf.float32)
    return half + tf.cast(tf.cast(x * 3, tf.int32), tf.float32)


def test_every_float_becomes_double_and_the_given_graph_stays() -> None:
    named = named_graph(looped, {"x": X})
    before = dtypes(named.graph)
    promoted = promote_graph(named)
    assert {tf.float32, tf.float16} <= before == dtypes(named.graph)
    assert tf.float64 in dtypes(promoted.graph)
    assert dtypes(promoted.graph).isdisjoint({tf.float32, tf.float16})
    assert (promoted.inputs, promoted.outputs) == (named.inputs, named.outputs)


def test_it_computes_in_double_precision() -> None:
    (found,) = run(promote_graph(named_graph(looped, {"x": X})).graph, promote_array(X))
    exact = X.astype(np.float64)
    # Constants keep the value that they had in float32.
    np.testing.assert_allclose(found, np.tanh(exact) * np.float64(np.float32(0.1)) + np.trunc(exact * 3), rtol=1e-15)


def test_uniform_random_numbers_stay_those_of_float32() -> None:
    def draw(seed: Any) -> Any:
        return tf.random.stateless_uniform((7,), seed) * 2

    seed = np.array([3, 5], np.int32)
    (found,) = run(promote_graph(named_graph(draw, {"seed": seed})).graph, seed)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, 2 * tf.random.stateless_uniform((7,), seed).numpy().astype(np.float64))


def test_bits_stay_those_of_float32() -> None:
    def signs(x: Any) -> Any:
        return tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), tf.int32.min) < 0

    numbers = np.array([-0.0, 0.0, -3.0, 2.0], np.float32)
    (found,) = run(promote_graph(named_graph(signs, {"x": numbers})).graph, promote_array(numbers))
    assert found.tolist() == [True, False, True, False]


def test_an_operation_that_is_float32_by_definition_is_named() -> None:
    def resize(x: Any) -> Any:
        return tf.image.resize(x[None, :, :, None], (6, 6))

    with pytest.raises(SinglePrecisionError, match=r"ResizeBilinear .* is not defined for float64"):
        promote_graph(named_graph(resize, {"x": X}))


def test_arrays() -> None:
    assert promote_array(X).dtype == promote_array(X.astype(np.float16)).dtype == np.float64
    assert promote_array(tf.constant(X, tf.bfloat16).numpy()).dtype == np.float64
    assert promote_array(X.astype(np.complex64)).dtype == np.complex128
    for dtype in (np.int64, np.bool_, np.float64, np.complex128):
        assert promote_array(X.astype(dtype)).dtype == dtype
