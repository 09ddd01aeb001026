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


@pytest.mark.parametrize("kernel", ["lanczos1", "lanczos3", "lanczos5", "gaussian", "box", "triangle", "keyscubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_wider_kernels_with_gradients(kernel: str, antialias: bool) -> None:
    def function(x: Any) -> list[Any]:
        results = []
        for size, shift in ((10, 14), 0.0), ((3, 4), 0.0), ((5, 7), 0.5), ((4, 9), -1.25):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.raw_ops.ScaleAndTranslate(
                    images=x,
                    size=size,
                    scale=[size[0] / 5, size[1] / 7],
                    translation=[shift, 2 * shift],
                    kernel_type=kernel,
                    antialias=antialias,
                )
            results += [y, tape.gradient(y, x, output_gradients=tf.stop_gradient(y))]
        return results

    check(function, {"x": Argument((None, 5, 7, 3))}, precisions=["float32"])


@pytest.mark.parametrize("align_corners", [True, False])
def test_means_of_areas(align_corners: bool) -> None:
    def function(x: Any) -> list[Any]:
        return [tf.raw_ops.ResizeArea(images=x, size=size, align_corners=align_corners) for size in SIZES]

    check(function, {"x": Argument((None, 5, 7, 3))}, precisions=["float32"])
