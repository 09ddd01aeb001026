"""Fake quantisation with its gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

EXACT = {"float32": 0.0}
RANGES = [(-1.0, 1.0), (-0.3, 2.7), (0.0, 6.0), (0.5, 2.0), (-3.0, -0.5), (-1e-3, 5.0), (-2.0, 0.0)]


def numbers(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Inside and outside of the ranges, and about half of them in the middle of two steps of a range from -1 to 1."""
    steps = (rng.integers(-300, 300, shape) + 0.5) * (2 / 255)
    return np.where(rng.random(shape) < 0.5, steps, 2 * rng.normal(size=shape))


X = Argument((None, 5, 40), "float32", numbers)
BOUNDS = {
    "low": Argument((8,), "float32", lambda rng, shape: [*(low for low, _ in RANGES), 0]),
    "high": Argument((8,), "float32", lambda rng, shape: [*(high for _, high in RANGES), 0]),
}
"""The ranges, and the one from 0 to 0."""


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_fixed_ranges(bits: int, narrow: bool) -> None:
    def function(x: Any) -> list[Any]:
        return [tf.quantization.fake_quant_with_min_max_args(x, *r, bits, narrow) for r in RANGES if r[0] <= 0 <= r[1]]

    check(gradients(function), {"x": X}, precisions=["float32"], tolerance=EXACT)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_one_range(bits: int, narrow: bool) -> None:
    def function(x: Any, low: Any, high: Any) -> list[Any]:
        return [
            tf.quantization.fake_quant_with_min_max_vars(x, low[index], high[index], bits, narrow)
            for index in range(len(RANGES) + 1)
        ]

    check(function, {"x": X, **BOUNDS}, precisions=["float32"], tolerance=EXACT)
    check(gradients(function), {"x": X, **BOUNDS}, precisions=["float32"])


@pytest.mark.parametrize("shape", [(8,), (None, 8), (None, 3, 4, 8)], ids=str)
@pytest.mark.parametrize(("bits", "narrow"), [(2, True), (5, False), (8, True), (16, False)])
def test_a_range_for_each_channel(shape: tuple[int | None, ...], bits: int, narrow: bool) -> None:
    def function(x: Any, low: Any, high: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(x, low, high, bits, narrow)

    arguments = {"x": Argument(shape, "float32", numbers), **BOUNDS}
    check(function, arguments, precisions=["float32"], tolerance=EXACT)
    check(gradients(function), arguments, precisions=["float32"])


def test_behind_a_convolution() -> None:
    """There, images have their channels first. Of whole numbers the convolution is exact, and so is the step."""
    kernel = tf.constant(np.random.default_rng(0).integers(-3, 4, (3, 3, 2, 4)), tf.float32)

    def function(x: Any, low: Any, high: Any) -> Any:
        images = tf.nn.conv2d(x, kernel, 1, "SAME")
        one = tf.quantization.fake_quant_with_min_max_vars(images, low[0], high[0], 16)
        return tf.nn.conv2d(
            tf.quantization.fake_quant_with_min_max_vars_per_channel(one, low, high, 16),
            tf.transpose(kernel, [0, 1, 3, 2]),
            1,
            "SAME",
        )

    bounds = {
        "low": Argument((4,), "float32", lambda rng, shape: -rng.uniform(5, 20, shape)),
        "high": Argument((4,), "float32", lambda rng, shape: rng.uniform(5, 20, shape)),
    }
    images = Argument((None, 5, 6, 2), "float32", lambda rng, shape: rng.integers(-4, 5, shape))
    check(gradients(function), {"x": images, **bounds}, precisions=["float32"])
