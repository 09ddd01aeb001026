"""Bins and counts against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check


def test_bins() -> None:
    boundaries = [-0.5, 0.25, 0.25, 1.0]
    check(
        lambda x, n: [
            tf.raw_ops.Bucketize(input=x, boundaries=boundaries),
            tf.raw_ops.Bucketize(input=n, boundaries=[0.0, 1.0, 2.0]),
        ],
        {"x": Argument((None, 4)), "n": Argument((None,), "int32")},
    )


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("shape", [(None, 6), (6,)])
def test_counts_of_numbers_some_of_which_are_too_large(shape: tuple[int | None, ...], binary: bool) -> None:
    def function(n: Any) -> Any:
        # The size is max(4, ...), and then min(4, ...): known, although what is in it is not.
        return tf.math.bincount(n, minlength=4, maxlength=4, axis=-1, binary_output=binary, dtype=tf.float32)

    check(function, {"n": Argument(shape, "int32", high=6)}, precisions=["float32"])


def test_sums_of_weights() -> None:
    def function(n: Any, w: Any) -> Any:
        return tf.math.bincount(n, weights=w, minlength=4, maxlength=4, axis=-1)

    check(function, {"n": Argument((None, 6), "int32", high=6), "w": Argument((None, 6))})


@pytest.mark.parametrize("weighted", [False, True])
def test_how_often_each_number_occurs_in_an_array(weighted: bool) -> None:
    def function(i: Any, w: Any) -> Any:
        return tf.raw_ops.Bincount(arr=i, size=4, weights=w if weighted else tf.zeros([0], w.dtype))

    check(function, {"i": Argument((None, 3), "int32", high=6), "w": Argument((None, 3))})


@pytest.mark.parametrize("whole", ["int32", "int64"])
@pytest.mark.parametrize("bins", [1, 5, 100])
def test_histograms(bins: int, whole: str) -> None:
    """Some numbers are on the edge of a bin, some beyond all bins; the range is constant, or from data."""

    def function(x: Any, n: Any) -> list[Any]:
        wide = tf.cast([-2.0, 3.0], x.dtype)
        data = tf.stack([tf.reduce_min(x) - 0.3, tf.reduce_max(x) / 2])
        return [
            tf.histogram_fixed_width(x, wide, bins, whole),
            tf.histogram_fixed_width(x, data, bins, whole),
            tf.histogram_fixed_width(n, [0, 7], bins, whole),
        ]

    edges = Argument((None, 50), make=lambda rng, shape: rng.integers(-60, 60, shape) / 20)
    check(function, {"x": edges, "n": Argument((None, 50), "int32", high=9)})


@pytest.mark.parametrize("seed", range(8))
def test_numbers_on_the_edges_of_bins(seed: int) -> None:
    """Rounding decides in which bin each is, so it has to be TensorFlow's."""
    rng = np.random.default_rng(seed)
    low, width, bins = rng.normal(), rng.uniform(0.1, 3), int(rng.integers(2, 300))
    edges = Argument((None, 2000), make=lambda rng, shape: low + rng.integers(-3, bins + 3, shape) * (width / bins))
    bounds = Argument((2,), make=lambda rng, shape: [low, low + width])
    check(lambda x, bounds: tf.histogram_fixed_width(x, bounds, bins), {"x": edges, "bounds": bounds})
