"""Fused batch normalization with its gradients, in training and in inference, against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

CHANNELS = 4
FORMATS = {
    "NHWC": (3, 5, CHANNELS),
    "NCHW": (CHANNELS, 3, 5),
    "NDHWC": (2, 3, 2, CHANNELS),
    "NCDHW": (CHANNELS, 2, 3, 2),
}
VECTOR = Argument((CHANNELS,))
VARIANCE = Argument((CHANNELS,), make=lambda rng, shape: rng.uniform(0.5, 2, shape))


def function(data_format: str, factor: float, is_training: bool) -> Any:
    def normalize(x: Any, scale: Any, offset: Any, mean: Any, variance: Any, dy: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch((x, scale, offset))
            made = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=scale,
                offset=offset,
                mean=mean,
                variance=variance,
                epsilon=1e-3,
                exponential_avg_factor=factor,
                is_training=is_training,
                data_format=data_format,
            )
        gradients = tape.gradient(made.y, (x, scale, offset), output_gradients=dy)
        return [made.y, made.batch_mean, made.batch_variance, *gradients]

    return normalize


@pytest.mark.parametrize(("is_training", "factor"), [(True, 1.0), (True, 0.01), (False, 1.0)])
@pytest.mark.parametrize("data_format", FORMATS)
def test_batch_normalization_with_gradients(data_format: str, is_training: bool, factor: float) -> None:
    image = Argument((None, *FORMATS[data_format]))
    arguments = {"x": image, "scale": VECTOR, "offset": VECTOR, "mean": VECTOR, "variance": VARIANCE, "dy": image}
    check(function(data_format, factor, is_training), arguments, precisions=["float32"])


def test_images_far_from_zero() -> None:
    far = Argument((None, 4, 4, CHANNELS), make=lambda rng, shape: 30 + rng.normal(size=shape))
    image = Argument((None, 4, 4, CHANNELS))
    arguments = {"x": far, "scale": VECTOR, "offset": VECTOR, "mean": VECTOR, "variance": VARIANCE, "dy": image}
    # What is left after the mean is taken off has lost a factor of thirty.
    check(function("NHWC", 1.0, True), arguments, precisions=["float32"], tolerance={"float32": 30 * 1e-6})


def test_half_precision_images_are_normalized_in_single_precision() -> None:
    image = Argument((None, 3, 5, CHANNELS), dtype="float16")
    arguments = {"x": image, "scale": VECTOR, "offset": VECTOR, "mean": VECTOR, "variance": VARIANCE, "dy": image}
    tolerance = {"float32": float(np.finfo(np.float16).eps)}
    check(function("NHWC", 1.0, True), arguments, precisions=["float32"], tolerance=tolerance)
    check(function("NHWC", 1.0, False), arguments, precisions=["float32"], tolerance=tolerance)
