"""Max and average pooling with their gradients against TensorFlow, ties included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients, session

EXPLICIT = [[0, 0], [1, 0], [0, 1], [0, 0]]
PLANES = [
    # size, window, stride
    ((8, 9), (2, 2), 2),
    ((8, 7), (3, 3), 2),
    ((7, 7), (3, 2), 1),
    ((5, 6), (5, 6), 1),
    ((6, 7), (2, 2), 3),
    ((8, 8), (4, 4), 4),
    ((9, 10), (5, 4), 3),
    ((6, 1), (2, 1), 2),
    # neighbouring windows of four
    ((8, 8), (2, 2), 2),
    ((7, 9), (2, 2), 2),
    ((2, 3), (2, 2), 2),
]
VOLUMES = [((4, 6, 5), (2, 2, 2), 2), ((5, 4, 5), (3, 2, 3), 2), ((3, 3, 4), (3, 3, 2), 1)]
CHANNELS = 3


def ties(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.integers(0, 3, shape)


def with_gradients(pool: Any, cases: Any, padding: Any) -> Any:
    def function(*images: Any) -> list[Any]:
        results = []
        for (_, window, stride), x in zip(cases, images, strict=True):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = pool(x, window, stride, padding)
            weights = tf.stop_gradient(y) + tf.reshape(tf.range(tf.size(y[0]), dtype=y.dtype), (1, *y.shape[1:])) / 10
            results += [y, tape.gradient(y, x, output_gradients=weights)]
        return results

    return function


def images(cases: Any, make: Any = None) -> dict[str, Argument]:
    return {f"x_{index}": Argument((None, *size, CHANNELS), make=make) for index, (size, *_) in enumerate(cases)}


@pytest.mark.parametrize("make", [None, ties])
@pytest.mark.parametrize("padding", ["SAME", "VALID", EXPLICIT], ids=["SAME", "VALID", "EXPLICIT"])
def test_max_pooling_with_gradients(padding: Any, make: Any) -> None:
    cases = PLANES if isinstance(padding, str) else [case for case in PLANES if 1 not in case[1]]
    check(with_gradients(tf.nn.max_pool2d, cases, padding), images(cases, make))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_average_pooling_with_gradients(padding: str) -> None:
    check(with_gradients(tf.nn.avg_pool2d, PLANES, padding), images(PLANES))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_pooling_of_volumes_with_gradients(padding: str) -> None:
    for pool, make in ((tf.nn.max_pool3d, None), (tf.nn.max_pool3d, ties), (tf.nn.avg_pool3d, None)):
        check(with_gradients(pool, VOLUMES, padding), images(VOLUMES, make), precisions=["float32"])


def test_channels_first() -> None:
    def function(x: Any) -> list[Any]:
        results = []
        for pool in (tf.nn.max_pool2d, tf.nn.avg_pool2d):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = pool(x, 3, 2, "SAME", data_format="NCHW")
            results += [y, tape.gradient(y, x, output_gradients=tf.stop_gradient(y))]
        return results

    check(function, {"x": Argument((None, 2, 7, 8))}, precisions=["float32"])


def test_a_constant_image_sends_each_gradient_to_one_element() -> None:
    cases = [((6, 6), (3, 3), 2)]
    constant = Argument((None, 6, 6, CHANNELS), make=lambda rng, shape: np.full(shape, -7.0))
    proto = check(with_gradients(tf.nn.max_pool2d, cases, "SAME"), {"x_0": constant})
    _, gradient = session(proto).run(None, {"x_0": np.full((1, 6, 6, CHANNELS), -7.0)})
    assert np.count_nonzero(gradient) == 3 * 3 * CHANNELS
    assert {len(node.output) for node in proto.graph.node if node.op_type == "MaxPool"} == {1}


@pytest.mark.parametrize("activation", [tf.nn.relu, tf.nn.relu6])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2)])
def test_the_gradient_of_an_activation_is_cut_before_the_pool_spreads_it(
    activation: Any, window: int, stride: int
) -> None:
    def function(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.max_pool2d(activation(x), window, stride, "VALID")
        return [y, tape.gradient(y, x, output_gradients=tf.stop_gradient(y) + 1)]

    for make in (None, lambda rng, shape: rng.integers(-3, 9, shape)):
        proto = check(function, {"x": Argument((None, 7, 8, CHANNELS), make=make)})
    cuts = [node for node in proto.graph.node if node.op_type == "Mul" and "/cut" in node.name]
    assert cuts, "the gradient is not cut on the pooled elements"


def test_an_activation_whose_input_is_used_elsewhere_is_cut_where_it_is() -> None:
    def function(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(x)
            loss = tf.reduce_sum(tf.nn.max_pool2d(y, 2, 2, "VALID") ** 2) + tf.reduce_sum(y**3)
        return [tape.gradient(loss, x)]

    check(function, {"x": Argument((None, 6, 6, CHANNELS))})


@pytest.mark.parametrize("make", [None, ties])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("in_batch", [False, True])
def test_where_the_largest_elements_are(in_batch: bool, padding: str, make: Any) -> None:
    def function(x: Any) -> list[Any]:
        pools = [
            tf.nn.max_pool_with_argmax(x, size, stride, padding, include_batch_in_index=in_batch)
            for size, stride in ((3, 2), (2, 2), (1, 1), (3, 1))
        ]
        return [each for pool in pools for each in (pool.output, pool.argmax)]

    def narrow(x: Any) -> Any:
        return tf.nn.max_pool_with_argmax(x, 2, 2, padding, output_dtype=tf.int32, include_batch_in_index=in_batch)

    images = {"x": Argument((None, 7, 6, 3), make=make)}
    check(gradients(function, is_smooth=make is None), images)
    check(narrow, images)
