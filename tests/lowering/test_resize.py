"""Resizing of images with its gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

SIZES = [(10, 14), (15, 21), (5, 7), (3, 4), (1, 1), (6, 5), (5, 20)]
ALIGNMENTS = [(False, True), (True, False), (False, False)]


@pytest.mark.parametrize(("align_corners", "half_pixel_centers"), ALIGNMENTS)
@pytest.mark.parametrize(
    "resize", [tf.raw_ops.ResizeBicubic, tf.raw_ops.ResizeBilinear, tf.raw_ops.ResizeNearestNeighbor]
)
def test_resizing_with_gradients(resize: Any, align_corners: bool, half_pixel_centers: bool) -> None:
    def function(x: Any) -> list[Any]:
        results = []
        for size in SIZES:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = resize(images=x, size=size, align_corners=align_corners, half_pixel_centers=half_pixel_centers)
            results += [y, tape.gradient(y, x, output_gradients=tf.stop_gradient(y))]
        return results

    # Bilinear and bicubic interpolation give float32 whatever they are given.
    tolerance = {"float64": 1e-13 if resize is tf.raw_ops.ResizeNearestNeighbor else 2e-6}
    check(function, {"x": Argument((None, 5, 7, 3))}, tolerance=tolerance)
