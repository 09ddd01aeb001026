"""Rows combined by segment, and bags of embeddings, against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def in_order(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Sorted numbers of segments, of which some have no row."""
    return np.sort(rng.integers(0, 6, shape))


SEGMENTS = Argument((None,), "int32", in_order)
LONG_SEGMENTS = Argument((None,), "int64", in_order)
KINDS = ["sum", "mean", "sqrt_n"]


@pytest.mark.parametrize("kind", ["sum", "mean", "prod", "max", "min"])
def test_segments_in_order(kind: str) -> None:
    combine = getattr(tf.math, f"segment_{kind}")

    def function(x: Any, y: Any, ids: Any, more: Any) -> list[Any]:
        return [combine(x, ids), combine(x[:, 0], ids), combine(y, more)]

    rows = {"x": Argument((None, 2, 3)), "y": Argument((None, 4)), "ids": SEGMENTS, "more": LONG_SEGMENTS}
    check(function if kind == "prod" else gradients(function), rows)


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_constant_segments_are_of_a_known_number(kind: str) -> None:
    """Shapes may depend on it."""

    def function(x: Any) -> list[Any]:
        columns = tf.transpose(x)
        found = getattr(tf.math, f"segment_{kind}")(columns, [0, 0, 1, 3, 3])
        picked = tf.sparse.segment_sum(columns, [4, 0, 1], [0, 2, 2])
        return [tf.reshape(found, [2, 2, -1]), tf.reshape(picked, [3, 1, tf.shape(x)[0]])]

    check(gradients(function), {"x": Argument((None, 5))})


def test_sums_of_equal_segments_are_of_one_size() -> None:
    def function(x: Any, weights: Any, ids: Any) -> Any:
        total = tf.math.segment_sum(x * weights[:, None], ids)
        return tf.math.divide_no_nan(total, tf.math.segment_sum(weights[:, None], ids))

    positive = Argument((None,), make=lambda rng, shape: rng.uniform(0.5, 2, shape))
    check(gradients(function), {"x": Argument((None, 3)), "weights": positive, "ids": SEGMENTS})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True])
def test_bags_of_rows(kind: str, sparse: bool) -> None:
    combine = getattr(tf.sparse, f"segment_{kind}")

    def function(table: Any, i: Any, ids: Any) -> list[Any]:
        of_number = combine(table, i, ids, num_segments=8, sparse_gradient=sparse)
        return [combine(tf.tanh(table), i, ids, sparse_gradient=sparse), of_number]

    indices = Argument((None,), "int64", high=5)
    check(gradients(function), {"table": Argument((5, 2, 3)), "i": indices, "ids": SEGMENTS})


@pytest.mark.parametrize("kind", ["sum", "mean", "sqrtn"])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_of_embeddings(kind: str, weighted: bool) -> None:
    def function(table: Any, weights: Any, ids: Any) -> Any:
        sparse = tf.sparse.from_dense(ids)
        given = tf.SparseTensor(sparse.indices, tf.gather_nd(weights, sparse.indices), sparse.dense_shape)
        bags = tf.nn.embedding_lookup_sparse(2 * table, sparse, given if weighted else None, kind)
        return [tf.reduce_sum(tf.sin(bags), 0), bags]

    positive = Argument((None, 4), make=lambda rng, shape: rng.uniform(0.5, 2, shape))
    rows = {"table": Argument((6, 3)), "weights": positive, "ids": Argument((None, 4), "int32", high=6)}
    check(gradients(function), rows, sizes=[(3, 1), (7, 1)])


def test_half_precision() -> None:
    def function(table: Any, i: Any, ids: Any) -> Any:
        return tf.sparse.segment_mean(tf.cast(table, tf.float16), i, ids)

    rows = {"table": Argument((5, 2), "float32"), "i": Argument((None,), "int32", high=5), "ids": SEGMENTS}
    check(lambda *a: tf.cast(function(*a), tf.float32), rows, precisions=["float32"], tolerance={"float32": 1e-3})
