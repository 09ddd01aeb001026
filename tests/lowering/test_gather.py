"""Lookups, scatters and segments against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_gather_with_gradients(dtype: str) -> None:
    def function(x: Any, i: Any) -> list[Any]:
        return [tf.gather(x, i), tf.gather(x, i, axis=1), tf.gather(x, i, axis=-1), tf.gather(x, [2, 0], axis=1)]

    check(gradients(function), {"x": Argument((3, 4, 5)), "i": Argument((None, 2), dtype)})


def test_gather_of_many_columns_with_gradients() -> None:
    order = np.random.default_rng(0).permutation(24)

    def function(x: Any, y: Any, i: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch((x, y))
            found = [
                tf.gather(x, order, axis=1),
                tf.gather(x, [*range(1, 24, 2), *range(0, 24, 2)], axis=-1),
                tf.gather(y, i, axis=2),
                tf.gather(y, order[:8], axis=2),
            ]
            total = sum(tf.reduce_sum(value * tf.stop_gradient(tf.sin(value))) for value in found)
        return [*found, *tape.gradient(total, (x, y))]

    check(
        function,
        {"x": Argument((None, 24)), "y": Argument((None, 3, 24)), "i": Argument((20,), "int32", high=24)},
    )


def test_gather_with_batch_axes() -> None:
    def function(x: Any, i: Any) -> list[Any]:
        return [
            tf.gather(x, i, axis=1, batch_dims=1),
            tf.gather(x, i, axis=2, batch_dims=1),
            tf.gather(x, i, axis=3, batch_dims=1),
            tf.gather(x, i, axis=3, batch_dims=2),
            tf.gather(x, i, axis=2, batch_dims=2),
            tf.gather(x, i[:, 0], axis=1, batch_dims=1),
        ]

    check(gradients(function), {"x": Argument((None, 3, 4, 5)), "i": Argument((None, 3), "int32")})


def test_gather_at_positions_with_gradients() -> None:
    def function(x: Any, i: Any) -> list[Any]:
        return [tf.gather_nd(x, i), tf.gather_nd(x, i[..., :1]), tf.gather_nd(x, i, batch_dims=1)]

    check(gradients(function), {"x": Argument((None, 4, 5)), "i": Argument((None, 2, 2), "int32")})


def test_embedding_gradients() -> None:
    def function(table: Any, i: Any) -> Any:
        return tf.nn.embedding_lookup(tf.identity(2 * table), i)

    model = check(gradients(function), {"table": Argument((6, 3)), "i": Argument((None, 4), "int32")})
    assert not any(node.op_type in ("OneHot", "MatMul", "Gemm") for node in model.graph.node)


def test_one_hot() -> None:
    def function(i: Any) -> list[Any]:
        plain = [tf.one_hot(i, 4), tf.one_hot(i, 4, axis=0), tf.one_hot(i, 4, axis=1), tf.one_hot(i, 4, dtype=tf.int32)]
        return [*plain, tf.one_hot(i, 4, True, False), tf.one_hot(i, 4, 2.5, -1.0), tf.one_hot(i, 3, dtype=tf.float64)]

    beyond = Argument((None, 3), "int32", make=lambda rng, shape: rng.integers(-2, 6, shape))
    check(function, {"i": beyond}, precisions=["float32"])
    check(lambda i: tf.one_hot(i, 5), {"i": Argument((None,), "uint8")}, precisions=["float32"])


def test_scatter_with_gradients() -> None:
    def function(x: Any, i: Any, updates: Any) -> list[Any]:
        return [
            tf.scatter_nd(i, updates, [4, 3]),
            tf.tensor_scatter_nd_add(x, i, updates),
            tf.tensor_scatter_nd_sub(x, i, updates),
        ]

    operands = {"x": Argument((4, 3)), "i": Argument((None, 1), "int32"), "updates": Argument((None, 3))}
    check(gradients(function), operands)


def test_scatter_that_replaces() -> None:
    def function(x: Any, updates: Any) -> list[Any]:
        i = [[2], [0]]
        return [
            tf.tensor_scatter_nd_update(x, i, updates),
            tf.tensor_scatter_nd_max(x, i, updates),
            tf.tensor_scatter_nd_min(x, i, updates),
        ]

    check(function, {"x": Argument((None, 3)), "updates": Argument((2, 3))})


def test_segments_leave_out_negative_numbers() -> None:
    def function(x: Any, i: Any) -> list[Any]:
        combined = [tf.math.unsorted_segment_sum(x, i, 4), tf.math.unsorted_segment_prod(x, i, 4)]
        combined += [tf.math.unsorted_segment_max(x, i, 4), tf.math.unsorted_segment_min(x, i, 4)]
        return [*combined, tf.math.unsorted_segment_sum(x[:, :, 0], i[:, None] * tf.ones([1, 2], tf.int32), 4)]

    operands = {
        "x": Argument((None, 2, 3)),
        "i": Argument((None,), "int32", make=lambda rng, shape: rng.integers(-1, 4, shape)),
    }
    check(function, operands, tolerance={"float32": 2e-6})


def test_segment_sums_with_gradients() -> None:
    check(
        gradients(lambda x, i: tf.math.unsorted_segment_sum(x, i, 3)),
        {"x": Argument((None, 2)), "i": Argument((None,), "int32")},
    )


def test_largest_elements_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        values, indices = tf.math.top_k(x, 3)
        return [values, tf.cast(indices, x.dtype), tf.math.top_k(x, 1).values]

    check(gradients(function), {"x": Argument((None, 2, 6))})
    tied = Argument((None, 6), make=lambda rng, shape: rng.integers(0, 3, shape))
    check(lambda x: list(tf.math.top_k(x, 4)), {"x": tied})


def test_targets_among_the_largest() -> None:
    """Also such that are no class: they are not among them."""
    targets = Argument((None,), "int32", make=lambda rng, shape: rng.integers(-2, 8, shape))
    operands = {"targets": targets, "predictions": Argument((None, 6), "float32")}
    check(lambda t, p: tf.math.in_top_k(t, p, 2), operands, precisions=["float32"])


def test_embedding_of_a_known_index_is_a_constant_shape() -> None:
    model = check(lambda x: tf.gather(x, np.int32(1)), {"x": Argument((None, 3))})
    assert [node.op_type for node in model.graph.node] == ["Gather"]
