"""Sparse arrays against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

SIZES = [(3, 1), (7, 1), (1, 1)]
IDS = Argument((None, 4), "int64", lambda rng, shape: np.maximum(rng.integers(-4, 6, shape), 0))
TABLE = Argument((6, 3))


@pytest.mark.parametrize("shape", [[-1], [2, -1], [-1, 2, 3]], ids=str)
def test_another_shape(shape: list[int]) -> None:
    def function(ids: Any) -> list[Any]:
        found = tf.sparse.reshape(tf.sparse.from_dense(ids), shape)
        return [found.indices, found.dense_shape, tf.sparse.to_dense(found, -1)]

    check(function, {"ids": Argument((None, 3, 4), "int32")}, precisions=["float32"], sizes=SIZES)


def test_empty_rows_are_filled() -> None:
    def function(x: Any, default: Any) -> list[Any]:
        sparse = tf.sparse.from_dense(tf.nn.relu(x))
        rows = tf.raw_ops.SparseFillEmptyRows(
            indices=sparse.indices, values=sparse.values, dense_shape=sparse.dense_shape, default_value=default[0]
        )
        dense = tf.sparse.to_dense(tf.SparseTensor(rows.output_indices, tf.sin(rows.output_values), sparse.dense_shape))
        return [*rows, dense]

    values = Argument((None, 3), make=lambda rng, shape: rng.normal(size=shape) - 0.8)
    check(gradients(function), {"x": values, "default": Argument((1,))}, sizes=SIZES)


def test_rows_that_are_not_in_order() -> None:
    def function(rows: Any, x: Any) -> list[Any]:
        places = tf.stack([rows, rows // 2], 1)
        return list(
            tf.raw_ops.SparseFillEmptyRows(
                indices=places, values=x, dense_shape=[9, 4], default_value=tf.cast(7, x.dtype)
            )
        )

    rows = Argument((None,), "int64", lambda rng, shape: rng.integers(0, 8, shape))
    check(function, {"rows": rows, "x": Argument((None,))}, sizes=SIZES)


@pytest.mark.parametrize("default", [None, 2])
@pytest.mark.parametrize("kind", ["sum", "mean", "sqrtn"])
def test_safe_bags_of_embeddings_are_as_many_as_rows(kind: str, default: int | None) -> None:
    def function(table: Any, x: Any, ids: Any) -> Any:
        sparse = tf.sparse.from_dense(ids)
        bags = tf.nn.safe_embedding_lookup_sparse(2 * table, sparse, combiner=kind, default_id=default)
        return bags * x

    check(gradients(function), {"table": TABLE, "x": Argument((None, 3)), "ids": IDS}, sizes=SIZES)


def test_dense_arrays() -> None:
    def function(x: Any, i: Any) -> list[Any]:
        default = tf.cast(2, x.dtype)
        return [
            tf.raw_ops.SparseToDense(
                sparse_indices=i[:1], output_shape=[5], sparse_values=x[:1], default_value=default
            ),
            tf.raw_ops.SparseToDense(sparse_indices=3, output_shape=[5], sparse_values=x[0], default_value=x[0]),
            tf.raw_ops.SparseToDense(
                sparse_indices=[1, 3], output_shape=[5], sparse_values=x[0], default_value=default
            ),
        ]

    check(function, {"x": Argument((None,)), "i": Argument((None,), "int32", high=5)})


def test_nothing_at_all() -> None:
    def function(table: Any, ids: Any) -> list[Any]:
        sparse = tf.sparse.from_dense(ids)
        few, _, counts = tf.unique_with_counts(sparse.values)
        rows = tf.RaggedTensor.from_tensor(tf.cast(ids, table.dtype), padding=0)
        bags = tf.nn.safe_embedding_lookup_sparse(2 * table, sparse)
        plain = tf.nn.embedding_lookup_sparse(2 * table, sparse, None, combiner="sqrtn")
        weighted = tf.math.segment_sum(tf.gather(table, sparse.values), sparse.indices[:, 0])
        return [bags, plain, weighted, counts, rows.to_tensor(1.0), rows.to_tensor(1.0, shape=[None, 4]), few]

    ids = Argument((None, 4), "int64", lambda rng, shape: np.zeros(shape))
    check(gradients(function), {"table": TABLE, "ids": ids}, sizes=SIZES)


@pytest.mark.parametrize("adjoint_b", [False, True])
@pytest.mark.parametrize("adjoint_a", [False, True])
def test_products_with_a_constant_sparse_matrix(adjoint_a: bool, adjoint_b: bool) -> None:
    """One place is given twice, one row and one column are empty; the places are in no order."""
    places = [[2, 1], [0, 3], [2, 1], [0, 0], [3, 0], [3, 3]]

    def function(x: Any, y: Any) -> Any:
        adjacency = tf.SparseTensor(places, tf.cast([0.5, 2, -1, 0.25, 3, 1], x.dtype), [4, 4])
        dense = y if adjoint_b else x
        return tf.sparse.sparse_dense_matmul(adjacency, tf.sin(dense), adjoint_a=adjoint_a, adjoint_b=adjoint_b)

    check(gradients(function), {"x": Argument((4, None)), "y": Argument((None, 4))}, sizes=SIZES)


@pytest.mark.parametrize("adjoint_b", [False, True])
@pytest.mark.parametrize("adjoint_a", [False, True])
def test_products_with_a_sparse_matrix_of_values_that_train(adjoint_a: bool, adjoint_b: bool) -> None:
    def function(values: Any, x: Any, places: Any) -> Any:
        adjacency = tf.SparseTensor(tf.cast(places, "int64"), tf.sin(values), [5, 5])
        return tf.sparse.sparse_dense_matmul(adjacency, tf.sin(x), adjoint_a=adjoint_a, adjoint_b=adjoint_b)

    dense = Argument((3, 5) if adjoint_b else (5, 3))
    places = Argument((None, 2), "int32", high=5)
    check(gradients(function), {"values": Argument((None,)), "x": dense, "places": places}, sizes=SIZES)


def test_products_with_a_sparse_matrix_whose_places_data_decide() -> None:
    """As many rows as the batch, and as many values as are positive; also none at all."""

    def function(x: Any, y: Any) -> list[Any]:
        sparse = tf.sparse.from_dense(tf.nn.relu(x))
        nothing = tf.sparse.from_dense(tf.zeros_like(x))
        return [tf.sparse.sparse_dense_matmul(matrix, tf.sin(y)) for matrix in (sparse, nothing)]

    check(gradients(function, is_smooth=False), {"x": Argument((None, 4)), "y": Argument((4, 3))}, sizes=SIZES)


def test_products_of_sparse_indices_in_int32() -> None:
    def function(x: Any) -> Any:
        places = tf.constant([[0, 1], [2, 0]], tf.int32)
        values = tf.cast([2, 3], x.dtype)
        return tf.raw_ops.SparseTensorDenseMatMul(a_indices=places, a_values=values, a_shape=[3, 2], b=x)

    check(function, {"x": Argument((2, None))}, sizes=SIZES)
