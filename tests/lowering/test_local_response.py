"""Local response normalisation with its gradient against TensorFlow."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


@pytest.mark.parametrize("radius,bias,alpha,beta", [(5, 1.0, 1.0, 0.5), (2, 2.0, 1e-4, 0.75), (1, 0.5, 0.3, 1.5)])
@pytest.mark.parametrize("channels", [1, 4, 13])
def test_with_gradients(channels: int, radius: int, bias: float, alpha: float, beta: float) -> None:
    def function(x: Any) -> Any:
        return tf.nn.local_response_normalization(x, radius, bias, alpha, beta)

    check(gradients(function), {"x": Argument((None, 3, 5, channels))}, precisions=["float32"])


def test_half_precision() -> None:
    def function(x: Any) -> Any:
        return tf.cast(tf.nn.local_response_normalization(tf.cast(x, tf.float16), 2), tf.float32)

    check(gradients(function), {"x": Argument((None, 3, 4, 7))}, precisions=["float32"], tolerance={"float32": 2e-3})
