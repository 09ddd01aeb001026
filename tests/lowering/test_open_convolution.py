"""Convolutions with a kernel whose size is computed at run time, and other arrays that a number gives its size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

IMAGES = {"x": Argument((None, 7, 6, 4)), "number": Argument((None,), "int32", high=9), "s": Argument(())}


def length(number: Any) -> Any:
    return 1 + tf.reduce_max(number)


def bell(size: Any, s: Any) -> Any:
    """A number for each element of a kernel that many elements long."""
    places = tf.range(tf.cast(size, s.dtype)) - tf.cast(size - 1, s.dtype) / 2
    return tf.exp(-places * places * 0.1) + s * places


def kernel(sizes: tuple[Any, Any], s: Any, depth: int, outputs: int) -> Any:
    plane = bell(sizes[0], s)[:, None] * bell(sizes[1], s)[None, :]
    weights = tf.range(1.0, depth * outputs + 1.0)
    return tf.reshape(plane, [*sizes, 1, 1]) * tf.reshape(tf.cast(weights, s.dtype), [depth, outputs]) / 8


def full(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    return [tf.nn.conv2d(x, kernel((size, size), s, 4, 3), 1, "SAME")]


def of_two_sizes(x: Any, number: Any, s: Any) -> list[Any]:
    sizes = (length(number), 1 + tf.reduce_min(number))
    return [
        tf.nn.conv2d(x, kernel(sizes, s, 4, 2), 1, "SAME"),
        tf.nn.conv2d(x, kernel((3, sizes[0]), s, 4, 2), 1, "SAME"),
    ]


def grouped(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    return [tf.nn.conv2d(x, kernel((size, size), s, 2, 6), 1, "SAME")]


def strided(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    return [tf.nn.conv2d(x, kernel((size, size + 1), s, 4, 3), (2, 3), "SAME")]


def dilated(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    w = kernel((size, size), s, 4, 2)
    return [tf.raw_ops.Conv2D(input=x, filter=w, strides=[1] * 4, padding="SAME", dilations=[1, 2, 1, 1])]


def grouped_by_parts(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    pairs = zip(tf.split(x, 2, -1), tf.split(kernel((size, size), s, 2, 6), 2, -1), strict=True)
    return [tf.concat([tf.nn.conv2d(*pair, 1, "SAME") for pair in pairs], -1)]


def dilated_by_zeros(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    w = kernel((size, size), s, 4, 2)
    spaced = tf.reshape(tf.stack([w, tf.zeros_like(w)], 1), [2 * size, size, 4, 2])[:-1]
    return [tf.nn.conv2d(x, spaced, 1, "SAME")]


def depthwise(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    return [
        tf.nn.depthwise_conv2d(x, kernel((size, size), s, 4, 1), [1] * 4, "SAME"),
        tf.nn.depthwise_conv2d(x, kernel((size, size), s, 4, 2), [1, 2, 2, 1], "SAME"),
    ]


def of_rows_and_volumes(x: Any, number: Any, s: Any) -> list[Any]:
    size = length(number)
    weights = kernel((size, 3), s, 4, 2)
    volume = weights[None] * bell(2, s)[:, None, None, None, None]
    return [
        tf.nn.conv1d(x[:, 0], weights[:, 0], 1, "SAME"),
        tf.nn.conv3d(x[:, :, :, None], tf.transpose(volume, [1, 2, 0, 3, 4]), [1] * 5, "SAME"),
    ]


@pytest.mark.parametrize("function", [full, of_two_sizes, strided, depthwise, of_rows_and_volumes])
def test_kernels_of_a_computed_size(function: Callable[..., Any]) -> None:
    check(gradients(function), IMAGES)


@pytest.mark.parametrize(
    ("function", "definition"), [(grouped, grouped_by_parts), (dilated, dilated_by_zeros)], ids=["grouped", "dilated"]
)
def test_what_tensorflow_has_no_gradients_of(function: Callable[..., Any], definition: Callable[..., Any]) -> None:
    check(gradients(function), IMAGES, reference=gradients(definition))


@pytest.mark.parametrize("most", [1, 40], ids=["of one element", "larger than the image"])
def test_kernels_of_every_size(most: int) -> None:
    number = Argument((None,), "int32", high=most)
    check(gradients(depthwise), IMAGES | {"number": number})


def test_other_padding_is_refused() -> None:
    def function(x: Any, number: Any, s: Any) -> Any:
        size = length(number)
        return tf.nn.conv2d(x, kernel((size, size), s, 4, 3), 1, "VALID")

    with pytest.raises(UnsupportedOperationError, match="only at run time; with the padding SAME"):
        lower(function, IMAGES)


# -- arrays of computed sizes


def filled(x: Any, n: Any) -> list[Any]:
    return [
        tf.reduce_sum(tf.fill([n, 3], x[0, 0]) * tf.ones([n, 1], x.dtype), 0),
        tf.zeros([n, tf.shape(x)[0]], x.dtype) + x[:, 0],
    ]


def tiled(x: Any, n: Any) -> list[Any]:
    tiles = tf.tile(x[:, None], [1, n, 2])
    wide = tf.broadcast_to(x[:, None], [tf.shape(x)[0], n, 3])
    return [tiles, wide * tf.cast(tf.range(n), x.dtype)[None, :, None], tf.shape(wide)]


def reshaped(x: Any, n: Any) -> list[Any]:
    numbers = tf.cast(tf.range(2 * n), x.dtype)
    pairs = tf.reshape(tf.tile(x[:1], [n, 2]), [3, n, 2])
    return [pairs * pairs, tf.reshape(tf.ones([n, 3], x.dtype) * x[0], [-1]), tf.reduce_sum(numbers)]


def packed(x: Any, n: Any) -> list[Any]:
    shape = tf.concat([[n], tf.shape(x)[1:], [1]], 0)
    sizes = tf.cast(tf.stack([n, 2]), x.dtype)
    ends = [tf.range(sizes[place]) for place in (0, 1, -1)]
    return [tf.zeros(shape, x.dtype) + ends[0][:, None, None] * x[0][:, None], *ends]


@pytest.mark.parametrize("function", [filled, tiled, reshaped, packed])
def test_arrays_of_a_computed_size(function: Callable[..., Any]) -> None:
    def of_numbers(x: Any, number: Any) -> Any:
        return function(x, length(number))

    check(gradients(of_numbers), {"x": Argument((None, 3)), "number": Argument((None,), "int32", high=4)})


def test_random_numbers_of_a_computed_size() -> None:
    def function(number: Any, seed: Any) -> list[Any]:
        shape = [length(number), 3]
        return [tf.random.stateless_uniform(shape, seed), tf.random.stateless_normal(shape, seed)]

    numbers = {"number": Argument((None,), "int32", high=9), "seed": Argument((2,), "int32", high=99)}
    check(function, numbers, precisions=["float32"])


def test_a_size_in_a_loop_is_refused() -> None:
    def function(x: Any, number: Any) -> Any:
        return tf.map_fn(
            lambda pair: tf.reduce_sum(tf.zeros([pair[1]], x.dtype) + pair[0]), (x, number), fn_output_signature=x.dtype
        )

    with pytest.raises(UnsupportedOperationError, match="depends on values, in a loop or a branch"):
        lower(function, {"x": Argument((4,)), "number": Argument((4,), "int32")})


# -- the layer that needs it


def slopes(rng: Any, shape: tuple[int, ...]) -> Any:
    """Images that change slowly, so that a place that is rounded differently is still of nearly that color."""
    rows, columns = (axis[:, :, None] for axis in np.meshgrid(*map(np.arange, shape[1:3]), indexing="ij"))
    return (
        rng.uniform(0, 1, (shape[0], 1, 1, shape[3])) * rows + rng.uniform(0, 1, (shape[0], 1, 1, shape[3])) * columns
    )


@pytest.mark.parametrize("batch", [None, 2], ids=["any batch", "two images"])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_elastic_transform(batch: int | None, seed: int) -> None:
    layer = keras.layers.RandomElasticTransform(factor=1.0, scale=(0.3, 1.0), seed=seed)

    def function(x: Any) -> Any:
        return layer(x, training=True)

    image = Argument((batch, 90, 101, 2), make=slopes)
    check(function, {"x": image}, precisions=["float32"], variables=[layer.generator.state.value])
