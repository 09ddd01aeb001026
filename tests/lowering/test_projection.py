"""Transformed images, and the systems of equations behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

MODES = ["CONSTANT", "NEAREST", "WRAP", "REFLECT"]


def transforms(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Turned, moved, a little in perspective; far out of the image."""
    identity = np.tile([1.0, 0, 0, 0, 1, 0, 0, 0], (shape[0], 1))
    return identity + rng.normal(size=shape) * [0.6, 0.6, 5.0, 0.6, 0.6, 5.0, 0.03, 0.03]


def project(images: Any, matrices: Any, **attributes: Any) -> Any:
    size = attributes.pop("size", [6, 7])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images, transforms=matrices, output_shape=size, **{"fill_value": 0.5, **attributes}
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", ["NEAREST", "BILINEAR"])
def test_transformed_images(mode: str, interpolation: str) -> None:
    arguments = {"x": Argument((None, 6, 5, 2)), "m": Argument((None, 8), "float32", transforms)}
    check(
        lambda x, m: project(x, m, fill_mode=mode, interpolation=interpolation),
        arguments,
        precisions=["float32"],
        tolerance={"float32": 1e-4 if interpolation == "BILINEAR" else 0},
    )


def test_other_dtypes_and_one_transform_for_all() -> None:
    def function(x: Any, m: Any) -> Any:
        return project(x, m, interpolation="BILINEAR", fill_value=3.0, size=[1, 4], fill_mode="REFLECT")

    arguments = {"x": Argument((None, 1, 5, 2), "int32", high=200), "m": Argument((1, 8), "float32", transforms)}
    check(function, arguments, precisions=["float32"])


def test_gradient_of_transformed_images() -> None:
    def turn(x: Any) -> Any:
        matrix = [[0.8, -0.6, 1.0, 0.6, 0.8, -2.0, 0.0, 0.0]]
        return project(x, matrix, interpolation="BILINEAR", size=[6, 5], fill_value=0.0)

    check(gradients(turn), {"x": Argument((None, 6, 5, 2))}, precisions=["float32"], tolerance={"float32": 1e-5})


@pytest.mark.parametrize("size", [1, 3, 8])
def test_systems_of_equations(size: int) -> None:
    def function(a: Any, b: Any) -> list[Any]:
        return [tf.linalg.solve(a, b), tf.linalg.solve(a, b, adjoint=True), tf.linalg.inv(a)]

    arguments = {"a": Argument((None, size, size)), "b": Argument((None, size, 2))}
    check(gradients(function), arguments, precisions=["float64"], tolerance={"float64": 1e-9})


def test_a_pivot_of_zero_is_passed_over() -> None:
    def swapped(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return np.broadcast_to([[0.0, 2.0, 0.0], [3.0, 0.0, 0.0], [0.0, 1.0, 4.0]], shape)

    check(tf.linalg.inv, {"a": Argument((None, 3, 3), make=swapped)})
