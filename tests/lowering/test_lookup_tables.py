"""Lookup tables of numbers, which become constants."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedError
from tests.lowering.conversion import Argument, check, lower


def table(keys: Any, values: Any, default: Any, dtypes: tuple[Any, Any] = (tf.int64, tf.int64)) -> Any:
    pairs = tf.lookup.KeyValueTensorInitializer(keys, values, *dtypes)
    return tf.lookup.StaticHashTable(pairs, default)


def near(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(-5, 30, shape)


@pytest.mark.parametrize(
    "keys,dtypes",
    [
        ([7, 3, 4, 5, 6], (tf.int64, tf.int64)),
        ([7, 3, 21], (tf.int64, tf.int64)),
        ([-4, 10**12, 8, 9], (tf.int64, tf.float32)),
        ([5], (tf.int64, tf.int32)),
        ([2, 3, 900], (tf.int32, tf.int32)),
    ],
    ids=str,
)
def test_tables_of_numbers(keys: list[int], dtypes: tuple[Any, Any]) -> None:
    made = table(keys, [11 * key % 97 for key in keys], -1, dtypes)

    def function(x: Any) -> list[Any]:
        looped = tf.while_loop(lambda i, t: i < 2, lambda i, t: [i + 1, t + made.lookup(x)], [0, made.lookup(x)])
        return [made.lookup(x), looped[1], tf.cast(made.size(), tf.float32)]

    check(function, {"x": Argument((None, 6), dtypes[0].name, near)}, precisions=["float32"])


def test_an_empty_table() -> None:
    made = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -2.0)
    check(made.lookup, {"x": Argument((None, 3), "int64")}, precisions=["float32"])


def test_what_is_refused() -> None:
    strings = table(["a"], [1], 0, (tf.string, tf.int64))
    growing = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)

    def grow(x: Any) -> Any:
        growing.insert(x, x)
        return growing.lookup(x)

    with pytest.raises(UnsupportedError, match="maps string to int64"):
        lower(lambda x: strings.lookup(tf.as_string(x)), {"x": Argument((None, 3), "int64")})
    with pytest.raises(UnsupportedError, match=r"LookupTableInsertV2 .* uses the resource"):
        lower(grow, {"x": Argument((None,), "int64")})
    dense = tf.lookup.experimental.DenseHashTable(tf.int64, tf.int64, 0, -1, -2)
    with pytest.raises(UnsupportedError, match="as a dense hash table does"):
        lower(lambda x: dense.lookup(x), {"x": Argument((None,), "int64")})


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_in_sorted_rows(side: str) -> None:
    def function(rows: Any, x: Any) -> Any:
        return tf.searchsorted(tf.sort(tf.round(rows * 2)), tf.round(x * 2), side)

    check(function, {"rows": Argument((None, 5)), "x": Argument((None, 7))})
