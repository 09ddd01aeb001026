"""Patches of images and volumes with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

IMAGES = Argument((None, 7, 6, 3))


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(
    ("size", "strides", "rates"),
    [
        ((3, 3), (1, 1), (1, 1)),
        ((3, 2), (2, 3), (1, 1)),
        ((2, 3), (1, 2), (3, 2)),
        ((2, 2), (2, 2), (1, 1)),
        ((1, 1), (3, 4), (1, 1)),
        ((7, 6), (1, 1), (1, 1)),
        ((2, 1), (4, 5), (2, 1)),
    ],
    ids=str,
)
def test_patches_of_images(
    size: tuple[int, int], strides: tuple[int, int], rates: tuple[int, int], padding: str
) -> None:
    def function(x: Any) -> Any:
        return tf.image.extract_patches(tf.sin(x), [1, *size, 1], [1, *strides, 1], [1, *rates, 1], padding)

    check(gradients(function), {"x": IMAGES})


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("size", "strides"), [((2, 3, 1), (1, 2, 2)), ((2, 2, 2), (2, 2, 2))], ids=str)
def test_patches_of_volumes(size: tuple[int, ...], strides: tuple[int, ...], padding: str) -> None:
    def function(x: Any) -> Any:
        return tf.extract_volume_patches(tf.sin(x), [1, *size, 1], [1, *strides, 1], padding)

    check(gradients(function), {"x": Argument((None, 4, 5, 3, 2))})


def test_a_window_larger_than_the_image() -> None:
    def function(x: Any) -> Any:
        return tf.image.extract_patches(x, [1, 9, 5, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME")

    check(gradients(function), {"x": IMAGES})


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float16"])
def test_other_numbers(dtype: str) -> None:
    def function(x: Any) -> Any:
        return tf.image.extract_patches(tf.cast(x, dtype), [1, 3, 3, 1], [1, 2, 2, 1], [1, 1, 1, 1], "SAME")

    check(function, {"x": Argument((None, 5, 5, 2), "int32", high=200)}, precisions=["float32"])


def test_an_open_axis_is_refused() -> None:
    def function(x: Any) -> Any:
        return tf.image.extract_patches(x, [1, 3, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME")

    with pytest.raises(UnsupportedOperationError, match="axes of a fixed size are covered"):
        lower(function, {"x": Argument((None, None, 5, 2))})
