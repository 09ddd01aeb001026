"""Dilated images with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 3, shape)


@pytest.mark.parametrize("make", [None, ties])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("stride", "rate"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_with_gradients(stride: int, rate: int, padding: str, make: Any) -> None:
    def function(x: Any, element: Any) -> Any:
        return tf.nn.dilation2d(x, element, [1, stride, stride, 1], padding, "NHWC", [1, rate, rate, 1])

    arguments = {"x": Argument((None, 7, 6, 2), make=make), "element": Argument((3, 2, 2), make=make)}
    check(gradients(function, is_smooth=make is None), arguments)


def test_a_single_number() -> None:
    def function(x: Any, element: Any) -> Any:
        return tf.nn.dilation2d(x, element, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1])

    check(gradients(function), {"x": Argument((None, 3, 4, 2)), "element": Argument((1, 1, 2))})


def test_eroded_images() -> None:
    def function(x: Any, element: Any) -> Any:
        return tf.nn.erosion2d(x, element, [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1])

    check(gradients(function), {"x": Argument((None, 5, 4, 2)), "element": Argument((2, 3, 2))})
