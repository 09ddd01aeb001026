"""Depthwise convolutions with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

EXPLICIT = [0, 0, 1, 2, 2, 0, 0, 0]
CASES = [
    # size, kernel, stride, depth multiplier
    ((8, 9), (3, 3), 1, 1),
    ((8, 7), (3, 2), 2, 2),
    ((9, 9), (5, 5), 2, 1),
    ((6, 7), (1, 1), 1, 3),
    ((6, 7), (1, 1), 2, 1),
    ((4, 4), (2, 2), 3, 1),
    ((3, 3), (3, 3), 1, 2),
    ((12, 11), (3, 3), 1, 1),
    # so few positions that the taps are summed with the channels last
    ((2, 2), (2, 2), 1, 1),
    ((3, 3), (3, 3), 1, 1),
    ((4, 3), (3, 3), 2, 1),
    ((5, 5), (5, 5), 2, 1),
    ((4, 4), (3, 2), 1, 1),
    # a matrix for each channel
    ((8, 8), (5, 5), 1, 1),
    ((6, 6), (3, 3), 1, 1),
    ((7, 6), (5, 3), 1, 1),
    ((9, 9), (3, 3), 2, 1),
    ((4, 4), (5, 5), 1, 1),
    ((1, 6), (1, 5), 2, 1),
    ((5, 5), (2, 2), 4, 1),
    # a matrix for each channel and row of the filter
    ((16, 15), (3, 3), 1, 1),
    ((14, 13), (5, 2), 1, 1),
    ((12, 12), (1, 3), 1, 1),
    # taps that only ever meet padding
    ((2, 2), (5, 5), 1, 1),
    ((1, 2), (7, 3), 1, 1),
]
CHANNELS = 3


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
def test_depthwise_convolutions_with_gradients(padding: str) -> None:
    cases = [case for case in CASES if padding == "SAME" or min(np.subtract(case[0], case[1])) >= 0]

    def function(*arguments: Any) -> list[Any]:
        results = []
        for (_, _, stride, _), x, w in zip(cases, arguments[::2], arguments[1::2], strict=True):
            attributes = {"strides": [1, stride, stride, 1], "padding": padding}
            if padding == "EXPLICIT":
                attributes["explicit_paddings"] = EXPLICIT
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = tf.raw_ops.DepthwiseConv2dNative(input=x, filter=w, **attributes)
            results += [y, *tape.gradient(y, (x, w), output_gradients=tf.stop_gradient(y))]
        return results

    arguments = {}
    for index, (size, kernel, _, multiplier) in enumerate(cases):
        arguments[f"x_{index}"] = Argument((None, *size, CHANNELS))
        arguments[f"w_{index}"] = Argument((*kernel, CHANNELS, multiplier))
    check(function, arguments)


@pytest.mark.parametrize(("size", "multiplier"), [((7, 8), 2), ((4, 4), 1), ((16, 17), 1)])
def test_dilated_depthwise_convolution_by_definition(size: tuple[int, int], multiplier: int) -> None:
    def operation(x: Any, w: Any) -> Any:
        return tf.raw_ops.DepthwiseConv2dNative(
            input=x, filter=w, strides=[1, 1, 1, 1], padding="VALID", dilations=[1, 2, 3, 1]
        )

    def definition(x: Any, w: Any) -> Any:
        spaced = tf.scatter_nd([[0], [2]], w, (3, *w.shape[1:]))
        spaced = tf.transpose(tf.scatter_nd([[0], [3]], tf.transpose(spaced, [1, 0, 2, 3]), (4, 3, *w.shape[2:])))
        return tf.nn.depthwise_conv2d(x, tf.transpose(spaced, [2, 3, 1, 0]), [1, 1, 1, 1], "VALID")

    def with_gradients(convolve: Any) -> Any:
        def function(x: Any, w: Any) -> list[Any]:
            with tf.GradientTape() as tape:
                tape.watch((x, w))
                y = convolve(x, w)
            return [y, *tape.gradient(y, (x, w), output_gradients=tf.stop_gradient(y))]

        return function

    arguments = {"x": Argument((None, *size, 3)), "w": Argument((2, 2, 3, multiplier))}
    check(with_gradients(operation), arguments, reference=with_gradients(definition))
