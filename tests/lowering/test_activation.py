"""Activation functions with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def test_activations_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        piecewise = [tf.nn.relu(x), tf.nn.relu6(4 * x), tf.nn.leaky_relu(x), tf.nn.leaky_relu(x, 0.05)]
        smooth = [tf.nn.elu(x), tf.nn.selu(x), tf.nn.softplus(x), tf.nn.softsign(x), tf.nn.tanh(x), tf.nn.sigmoid(x)]
        return [*piecewise, *smooth, tf.nn.softmax(x), tf.nn.log_softmax(x), tf.nn.softmax(x, axis=1), tf.nn.silu(x)]

    check(gradients(function), {"x": Argument((None, 3, 4))})


def test_gradients_at_the_kinks() -> None:
    numbers = np.array([-7, -1, -0.0, 0, 1e-30, 1, np.nextafter(np.float32(6), 0), 6, 6.0000005, 7, 100])
    kinks = Argument((None, len(numbers)), make=lambda rng, shape: np.resize(numbers, shape))

    def function(dy: Any, y: Any) -> list[Any]:
        return [tf.raw_ops.ReluGrad(gradients=dy, features=y), tf.raw_ops.Relu6Grad(gradients=dy, features=y)]

    arguments = {"dy": Argument((None, len(numbers))), "y": kinks}
    check(function, arguments, precisions=["float16", "float32", "float64"], tolerance={"float16": 0.0})


def test_gelu_with_gradients() -> None:
    check(
        gradients(lambda x: [tf.nn.gelu(x, approximate=False), tf.nn.gelu(x, approximate=True)]),
        {"x": Argument((None, 3, 4))},
    )


def test_second_derivatives() -> None:
    def function(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(tf.tanh(x) + tf.sigmoid(x) + tf.sqrt(tf.abs(x)) + tf.math.rsqrt(tf.abs(x)) + 1 / x)
        return [tape.gradient(y, x)]

    check(gradients(function), {"x": Argument((None, 4))})


def test_tails_of_the_sigmoid() -> None:
    tails = Argument((None, 12), make=lambda rng, shape: np.resize(np.linspace(-30, 30, 12), shape))
    check(lambda x: tf.unstack(tf.nn.sigmoid(x), axis=1), {"x": tails})
