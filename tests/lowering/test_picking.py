"""Arrays whose size data decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from graphfreeze.lowering.sizes import BATCH, Sizes
from tests.lowering.conversion import Argument, check, gradients, lower, session

ROWS = {"x": Argument((None, 4)), "w": Argument((4, 3))}


def masked_mean(x: Any, w: Any) -> list[Any]:
    return [tf.reduce_mean(tf.boolean_mask(tf.tanh(x @ w), x[:, 0] > 0.0), 0)]


def masked_attention(x: Any, w: Any) -> list[Any]:
    picked = tf.boolean_mask(x @ w, x[:, 1] > 0.1)
    scores = tf.nn.softmax(0.25 * tf.matmul(picked, picked, transpose_b=True))
    return [tf.reduce_sum(scores @ picked, 0), tf.reduce_max(picked, 0)]


def sizes_as_numbers(x: Any, w: Any) -> list[Any]:
    picked = tf.boolean_mask(x @ w, x[:, 0] > 0.0)
    count = tf.shape(picked)[0]
    padded = tf.pad(picked, [[0, tf.shape(x)[0] - count], [0, 0]])
    return [tf.reduce_sum(picked, 0) / tf.cast(count + 1, x.dtype), tf.ensure_shape(padded, [None, 3]), count]


def several_masks(x: Any, w: Any) -> list[Any]:
    one, other = tf.boolean_mask(x @ w, x[:, 0] > 0.0), tf.boolean_mask(x, x[:, 1] < 0.0)
    return [tf.concat([one, other[:, :3]], 0), tf.reduce_sum(one, 0) * tf.reduce_sum(other[:, :3], 0)]


@pytest.mark.parametrize("function", [masked_mean, masked_attention, sizes_as_numbers, several_masks])
def test_rows_picked_by_a_mask(function: Callable[..., Any]) -> None:
    check(gradients(function), ROWS)


def test_elements_picked_and_put() -> None:
    def function(x: Any) -> list[Any]:
        places = tf.where(x > 0.0)
        values = tf.gather_nd(x, places)
        put = tf.scatter_nd(places, values * values, tf.shape(x, out_type=tf.int64))
        return [places, put, tf.tensor_scatter_nd_update(x, places, tf.exp(values))]

    check(gradients(function), {"x": Argument((None, 2, 3))})


def test_a_mask_over_several_axes() -> None:
    def function(x: Any) -> list[Any]:
        picked = tf.boolean_mask(x, x[:, :, 0] > 0.0)
        return [tf.reduce_mean(picked), tf.reduce_sum(tf.sin(picked), 0)]

    check(gradients(function), {"x": Argument((None, 3, 4))})


@pytest.mark.parametrize("bound", [-9.0, 9.0], ids=["all", "none"])
def test_all_rows_and_none(bound: float) -> None:
    def function(x: Any, w: Any) -> list[Any]:
        picked = tf.boolean_mask(x @ w, x[:, 0] > bound)
        return [tf.reduce_sum(picked * picked), picked]

    check(gradients(function), ROWS)


def test_a_range_that_data_end() -> None:
    def function(x: Any, ends: Any) -> list[Any]:
        whole, steps = tf.range(tf.reduce_max(ends)), tf.range(1.0, tf.cast(tf.reduce_sum(ends), tf.float32), 0.5)
        return [tf.reduce_sum(x) * tf.reduce_mean(tf.cast(numbers, x.dtype)) for numbers in (whole, steps)]

    check(gradients(function), {"x": Argument((None, 3)), "ends": Argument((None,), "int32", high=5)})


def test_gradients_are_finite_differences() -> None:
    def loss(x: Any, w: Any) -> Any:
        picked = tf.boolean_mask(tf.tanh(x @ w), x[:, 0] > 0.0)
        put = tf.scatter_nd(tf.where(x[:, 1] > 0.0), tf.boolean_mask(x * x, x[:, 1] > 0.0), tf.shape(x, tf.int64))
        return tf.reduce_mean(picked) + tf.reduce_sum(tf.sin(put))

    def function(x: Any, w: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            value = loss(x, w)
        return [value, *tape.gradient(value, [x, w])]

    _, proto = lower(function, ROWS, "float64")
    runner = session(proto)
    rng = np.random.default_rng(3)
    values = {name: argument.draw(rng, 6, 1, "float64") for name, argument in ROWS.items()}
    assert 0 < np.sum(values["x"][:, 0] > 0) < 6
    _, *found = runner.run(None, values)
    for name, gradient in zip(values, found, strict=True):
        for place in np.ndindex(gradient.shape):
            losses = []
            for step in (1e-6, -1e-6):
                moved = values[name].copy()
                moved[place] += step
                losses.append(float(runner.run(None, {**values, name: moved})[0]))
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(gradient[place], rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32", "float64", "float16"])
def test_different_elements(dtype: str) -> None:
    def function(x: Any) -> list[Any]:
        few, places, counts = tf.unique_with_counts(tf.cast(x[:, 0], dtype), tf.int64)
        rows, row_places = tf.raw_ops.UniqueV2(x=tf.cast(x, dtype), axis=[0])
        columns = tf.raw_ops.UniqueWithCountsV2(x=tf.cast(x[:2], dtype), axis=[-1])
        flat = tf.raw_ops.UniqueV2(x=tf.cast(x[:, 1], dtype), axis=tf.zeros([0], tf.int32))
        found = [few, places, counts, *tf.unique(tf.cast(x[:, 1], dtype)), rows, row_places, *columns, *flat]
        return [tf.cast(each, tf.float32) if each.dtype == tf.float16 else each for each in found]

    check(function, {"x": Argument((None, 2), "int32", high=3)}, precisions=["float32"], sizes=[(9, 1), (2, 1)])


def test_lookups_of_different_rows() -> None:
    def function(table: Any, ids: Any) -> Any:
        few, places = tf.unique(tf.reshape(ids, [-1]))
        rows = tf.math.l2_normalize(tf.gather(tf.tanh(table), few), -1)
        return tf.reshape(tf.gather(rows, places), [-1, 3, 4])

    check(gradients(function), {"table": Argument((7, 4)), "ids": Argument((None, 3), "int64", high=7)})


def test_in_a_loop_it_is_refused() -> None:
    def function(x: Any) -> Any:
        return tf.map_fn(lambda row: tf.reduce_sum(tf.boolean_mask(row, row > 0.0)), x)

    with pytest.raises(UnsupportedOperationError, match="depends on values, in a loop or a branch"):
        lower(function, {"x": Argument((4, 3))})


def test_sizes_that_data_decide_are_told_apart() -> None:
    sizes = Sizes.of_sequences().with_picked(3)
    assert len({*sizes.samples.values()}) == len(sizes.samples) == 5
    assert all(len(samples) == len(sizes.monomials) + 1 for samples in sizes.samples.values())
    picked = np.array(sizes.samples["picked_1"]) * 3 + np.array(sizes.samples[BATCH]) + 1
    found = sizes.fit([np.array(value) for value in picked])
    assert found is not None
    assert {monomial: int(factor) for monomial, factor in found.items()} == {(): 1, (BATCH,): 1, ("picked_1",): 3}
    assert Sizes.of_batch().with_picked(0) == Sizes.of_batch()
    assert Sizes.fixed().with_picked(1).name(Sizes.fixed().with_picked(1).samples["picked_0"]) == "picked_0"
