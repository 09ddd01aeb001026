"""Reductions, positions and running totals against TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

AXES: list[Any] = [None, [0], [1], [-1], [1, 2], [0, 2], [0, 1, 2], []]


@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions_with_gradients(keepdims: bool) -> None:
    def function(x: Any) -> list[Any]:
        sums = [tf.reduce_sum(x, axis, keepdims) for axis in AXES]
        means = [tf.reduce_mean(x, axis, keepdims) for axis in AXES]
        others = [tf.math.reduce_variance(x, [0, 1], keepdims), tf.reduce_logsumexp(x, [-1], keepdims)]
        return [*sums, *means, *others, tf.reduce_max(x, [1], keepdims), tf.reduce_min(x, [-1], keepdims)]

    check(gradients(function), {"x": Argument((None, 3, 4))})


def test_l2_loss_with_gradients() -> None:
    check(gradients(lambda x: [tf.nn.l2_loss(x)]), {"x": Argument((None, 3, 4))})


def test_products_with_gradients() -> None:
    check(gradients(lambda x: [tf.reduce_prod(x, [1]), tf.reduce_prod(x, [-1])]), {"x": Argument((None, 3, 4))})


def test_extremes_and_norms() -> None:
    def function(x: Any) -> list[Any]:
        extremes = [reduce(x, axis) for reduce in (tf.reduce_max, tf.reduce_min) for axis in AXES]
        return [*extremes, tf.math.reduce_euclidean_norm(x, [1]), tf.norm(x, axis=-1), tf.linalg.l2_normalize(x, 1)]

    check(function, {"x": Argument((None, 3, 4))})


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8", "int16"])
def test_integer_reductions(dtype: str) -> None:
    def function(x: Any) -> list[Any]:
        summed = [tf.reduce_sum(x, [1]), tf.reduce_prod(x, [1]), tf.reduce_max(x, [0]), tf.reduce_min(x)]
        return [*summed, tf.argmax(x, 1), tf.argmin(x, 0, output_type=tf.int32), tf.cumsum(tf.cast(x, tf.int64), 1)]

    check(function, {"x": Argument((None, 4), dtype, high=4)}, precisions=["float32"])


def test_logical_reductions() -> None:
    def function(x: Any) -> list[Any]:
        return [reduce(x, axis) for reduce in (tf.reduce_all, tf.reduce_any) for axis in AXES[1:-1]]

    check(function, {"x": Argument((None, 3, 2), "bool")}, precisions=["float32"])


def test_positions_of_extremes() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.argmax(x, -1), tf.argmin(x, 1), tf.argmax(x, 0, output_type=tf.int32)]

    tied = Argument((None, 3, 4), make=lambda rng, shape: rng.integers(0, 2, shape))
    check(function, {"x": tied})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_totals_with_gradients(exclusive: bool, reverse: bool) -> None:
    def function(x: Any) -> list[Any]:
        sums = [tf.cumsum(x, axis, exclusive, reverse) for axis in (0, 1, -1)]
        return [*sums, tf.math.cumprod(x, 1, exclusive, reverse), tf.math.cumprod(x, -1, exclusive, reverse)]

    check(gradients(function), {"x": Argument((None, 5, 2))})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("exclusive", [False, True])
def test_running_sums_of_exponentials_with_gradients(exclusive: bool, reverse: bool) -> None:
    def function(x: Any) -> list[Any]:
        found = [tf.math.cumulative_logsumexp(5 * x, axis, exclusive, reverse) for axis in (1, -1)]
        # What is left out at the end is the lowest number: where it counts, nothing else does.
        return [tf.where(each > -1e30, each, 0) for each in found] if exclusive else found

    check(gradients(function), {"x": Argument((None, 7, 3))})


def test_running_sums_of_exponentials_start_at_the_lowest_number() -> None:
    def function(x: Any) -> Any:
        return tf.math.cumulative_logsumexp(x, 1, exclusive=True)[:, 0]

    check(function, {"x": Argument((None, 3))})
