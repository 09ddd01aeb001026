"""Rows of different lengths against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

SIZES = [(3, 1), (6, 1), (1, 1)]


def lengths(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 4, shape)


def row_numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.sort(rng.integers(0, 4, shape))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
@pytest.mark.parametrize("splits", [tf.int32, tf.int64])
def test_ranges(dtype: str, splits: Any) -> None:
    def ranges(*bounds: Any) -> list[Any]:
        found = tf.ragged.range(*bounds, row_splits_dtype=splits)
        return [found.values, found.row_splits]

    def function(starts: Any, limits: Any, steps: Any) -> list[Any]:
        wide = tf.where(steps < 0, -4 * limits, 4 * limits)
        return [
            *ranges(limits),
            *ranges(starts, limits),
            *ranges(starts, wide, steps),
            *ranges(tf.cast(1, dtype), limits),
            *ranges(starts, wide, tf.cast(2, dtype)),
            *ranges(tf.cast(1, dtype), limits[0] + 4, tf.cast(2, dtype)),
        ]

    steps = Argument((None,), dtype, lambda rng, shape: rng.choice([-3, -1, 1, 2], shape))
    bounds = {"starts": Argument((None,), dtype, lengths), "limits": Argument((None,), dtype, lengths), "steps": steps}
    check(function, bounds, precisions=["float32"], sizes=SIZES)


def in_rows(values: Any, cuts: Any) -> Any:
    """One row more than there are cuts, of which some are empty."""
    count = tf.shape(values, tf.int64)[0]
    return tf.RaggedTensor.from_row_splits(values, tf.concat([[0], cuts, [count]], 0), validate=False)


def in_rows_of_rows(values: Any, cuts: Any) -> Any:
    rows = in_rows(values, cuts)
    return tf.RaggedTensor.from_row_splits(rows, tf.concat([[0], cuts, [rows.nrows()]], 0), validate=False)


def cut_places(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.sort(rng.integers(0, shape[0] + 1, shape))


CUT = {"x": Argument((None, 2)), "cuts": Argument((None,), "int64", cut_places)}


def test_rows_picked() -> None:
    def function(x: Any, cuts: Any, i: Any) -> list[Any]:
        rows = in_rows(tf.sin(x), cuts)
        one, many = tf.gather(rows, i[:, 0]), tf.gather(rows, i)
        return [one.values, one.row_splits, many.flat_values, *many.nested_row_splits]

    check(gradients(function), CUT | {"i": Argument((None, 3), "int32", high=2)}, sizes=SIZES)


@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_rows_of_rows_picked(dtype: Any) -> None:
    def function(x: Any, cuts: Any, i: Any) -> list[Any]:
        found = tf.gather(in_rows_of_rows(tf.sin(x), cuts).with_row_splits_dtype(dtype), i)
        return [found.flat_values, *found.nested_row_splits]

    check(gradients(function), CUT | {"i": Argument((None,), "int64", high=2)}, sizes=SIZES)


@pytest.mark.parametrize("shape", [None, [None, 2, None], [None, 5, 2]], ids=str)
def test_rows_padded(shape: Any) -> None:
    def function(x: Any, cuts: Any, default: Any) -> list[Any]:
        rows = in_rows(tf.sin(x), cuts)
        defaults = (None, default, 2 * default[0])
        return [rows.to_tensor(given, shape=shape) for given in defaults]

    check(gradients(function), CUT | {"default": Argument((2,))}, sizes=SIZES)


@pytest.mark.parametrize("shape", [None, [None, 2, 3, 2], [9, None, 1, None]], ids=str)
def test_rows_of_rows_padded(shape: Any) -> None:
    def function(x: Any, cuts: Any) -> Any:
        return in_rows_of_rows(tf.sin(x), cuts).to_tensor(shape=shape)

    check(gradients(function), CUT, sizes=SIZES)


def test_rows_padded_by_their_numbers() -> None:
    def function(x: Any, i: Any) -> list[Any]:
        rows = tf.RaggedTensor.from_value_rowids(tf.sin(x), i, 6, validate=False)
        rows_of_rows = tf.RaggedTensor.from_value_rowids(rows, [0, 0, 2, 2, 2, 3], 5)
        some = tf.RaggedTensor.from_value_rowids(tf.sin(x), i, validate=False)
        return [rows.to_tensor(), rows_of_rows.to_tensor(), some.to_tensor(1.0, shape=[None, 4, 2])]

    arguments = {"x": Argument((None, 2)), "i": Argument((None,), "int32", row_numbers)}
    check(gradients(function), arguments, precisions=["float32"], sizes=SIZES)


def test_a_mean_over_rows_of_different_lengths() -> None:
    def function(x: Any, w: Any) -> Any:
        rows = tf.RaggedTensor.from_tensor(x, padding=0.0)
        dense = rows.with_values(tf.tanh(rows.values * w[0])).to_tensor(0.0, shape=[None, 5])
        return tf.concat([dense, tf.reduce_sum(dense, 1, keepdims=True)], 1)

    def padded(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return rng.normal(size=shape) * (np.arange(shape[1]) < rng.integers(0, shape[1] + 1, (shape[0], 1)))

    check(gradients(function, is_smooth=False), {"x": Argument((None, 5), make=padded), "w": Argument((1,))})


def test_what_is_refused() -> None:
    def function(x: Any, splits: Any, shape: Any) -> Any:
        rows = tf.RaggedTensor.from_row_splits(x, splits, validate=False)
        return rows.to_tensor(shape=shape)

    arguments = {"x": Argument((None,)), "splits": Argument((None,), "int64"), "shape": Argument((2,), "int64")}
    with pytest.raises(UnsupportedOperationError, match="a shape that is computed at run time"):
        lower(function, arguments)
