"""Boxes cut out of images with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def boxes(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Some beyond the image, some upside down."""
    return rng.uniform(-0.3, 1.3, shape)


BOXES = Argument((None, 4), "float32", boxes)
OWNERS = Argument((None,), "int32", high=2)


@pytest.mark.parametrize("size", [(3, 4), (1, 5), (6, 1), (9, 8)], ids=str)
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_crops_with_gradients(method: str, size: tuple[int, int]) -> None:
    def function(x: Any, edges: Any, owners: Any) -> Any:
        return tf.image.crop_and_resize(x, edges, owners, size, method, 0.7)

    images = Argument((2, 5, 7, 3))
    check(
        gradients(function, is_smooth=False),
        {"x": images, "edges": BOXES, "owners": OWNERS},
        precisions=["float32"],
        tolerance={"float32": 4e-6},
    )


def test_one_crop_of_each_image() -> None:
    def function(x: Any, edges: Any) -> Any:
        return tf.image.crop_and_resize(tf.sin(x), edges, tf.range(tf.shape(x)[0]), (4, 4))

    check(
        gradients(function, is_smooth=False),
        {"x": Argument((None, 6, 6, 2)), "edges": BOXES},
        tolerance={"float32": 4e-6, "float64": 4e-6},
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16"])
def test_other_images(dtype: str) -> None:
    def function(x: Any, edges: Any) -> Any:
        return tf.image.crop_and_resize(tf.cast(x, dtype), edges, tf.range(tf.shape(x)[0]), (4, 3))

    images = Argument((None, 5, 4, 2), "int32", high=200)
    check(function, {"x": images, "edges": BOXES}, precisions=["float32"])
