"""Colours and shifts of bits against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Colours, among them black, white and grey ones, and ones with two equal largest parts."""
    values = rng.uniform(size=shape)
    values[0, 0] = 0
    values[0, 1] = 1
    values[1, 0] = 0.4
    values[1, 1] = [0.7, 0.7, 0.2]
    values[1, 2] = [0.1, 0.7, 0.7]
    return values


@pytest.mark.parametrize("convert", [tf.image.rgb_to_hsv, tf.image.hsv_to_rgb])
def test_colors(convert: Any) -> None:
    check(convert, {"x": Argument((None, 4, 3), make=draw)})


def test_shifts_of_bits() -> None:
    def function(x: Any, n: Any, m: Any) -> list[Any]:
        shifted = [tf.bitwise.left_shift(x, tf.constant(3, x.dtype)), tf.bitwise.right_shift(x, m)]
        return [*shifted, tf.bitwise.left_shift(n, 3), tf.bitwise.right_shift(n, 2)]

    signed = Argument((None, 4), "int32", make=lambda rng, shape: rng.integers(-99, 99, shape))
    unsigned = Argument((None, 4), "uint8", high=256)
    check(function, {"x": unsigned, "n": signed, "m": Argument((None, 4), "uint8", high=8)}, precisions=["float32"])
