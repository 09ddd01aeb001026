"""Arrays put together, taken apart, filled, padded, permuted against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

IMAGE = Argument((None, 3, 4, 2))


def test_shapes_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        batch = tf.shape(x)[0]
        reshaped = [tf.reshape(x, [-1, 24]), tf.reshape(x, [batch, 4, 6]), tf.reshape(x, [batch * 3, -1])]
        expanded = [tf.expand_dims(x, 0), tf.expand_dims(x, -1), tf.squeeze(tf.expand_dims(x, 2), [2])]
        return [*reshaped, *expanded, tf.transpose(x), tf.transpose(x, [0, 3, 1, 2]), tf.transpose(x, [2, 0, 3, 1])]

    check(gradients(function), {"x": IMAGE})


def test_shapes_as_values() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        batch = tf.shape(x)[0]
        sizes = [tf.shape(x), tf.shape(x, out_type=tf.int64), tf.size(x), tf.rank(x), *tf.shape_n([x, y])]
        computed = [
            batch * 3 + 1,
            tf.cast(batch, tf.float32) * 2,
            tf.stack([batch, 7]),
            tf.range(batch),
            tf.range(0, batch, 2),
        ]
        return [*sizes, *computed, tf.zeros([batch, 2]), tf.ones_like(x), tf.zeros_like(x), tf.fill([2, batch], 3.5)]

    check(function, {"x": IMAGE, "y": Argument((None, 4))})


def test_joining_and_splitting_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        joined = [tf.concat([x, y, x], axis) for axis in (0, 1, -1)]
        stacked = [tf.stack([x, y], axis) for axis in (0, 1, -1)]
        parts = [*tf.unstack(x, axis=1), *tf.unstack(x, axis=-1), *tf.split(x, 2, 2), *tf.split(x, [1, 3], 2)]
        return [*joined, *stacked, *parts, *tf.split(x, 1, 1)]

    check(gradients(function), {"x": IMAGE, "y": IMAGE})


def test_splitting_into_many_parts_takes_nodes_of_few_outputs() -> None:
    # A kernel of WebGPU has at least eight buffers.
    def function(x: Any) -> list[Any]:
        return [*tf.split(x, 100, 1), *tf.split(x, [8, 1, 3, 8, 1, 9, 1, 1, 2, 50, 7, 9], 1), *tf.split(x, 10, 1)]

    proto = check(gradients(function), {"x": Argument((None, 100, 2))})
    splits = [node for node in proto.graph.node if node.op_type == "Split"]
    assert max(len(node.output) for node in splits) == 7


def test_filling_with_gradients() -> None:
    def function(x: Any, scalar: Any) -> list[Any]:
        batch = tf.shape(x)[0]
        broadcast = [tf.broadcast_to(scalar, [batch, 3]), tf.broadcast_to(x, [5, batch, 1, 3])]
        broadcast.append(tf.broadcast_to(x[:, :, :1], [batch, 4, 2]))
        return [
            *broadcast,
            tf.tile(x, [2, 3, 1]),
            tf.tile(x, [1, 4, 2]),
            tf.fill([batch, 2], scalar),
            tf.repeat(x, 2, 2),
        ]

    check(gradients(function), {"x": Argument((None, 1, 3)), "scalar": Argument(())})


@pytest.mark.parametrize("size", [3, 400], ids=["few", "more than are folded"])
def test_elements_repeated_each_as_often_as_a_constant_says(size: int) -> None:
    def function(x: Any) -> list[Any]:
        counts = np.arange(size) % 3
        return [
            tf.repeat(tf.sin(x), [2, 0, 1, 1], axis=1),
            tf.repeat(x, counts, axis=2),
            tf.repeat(x[:, 0], counts, axis=-1),
            tf.repeat(x, np.ones(size, np.int64), axis=2),
        ]

    check(gradients(function), {"x": Argument((None, 4, size))})


@pytest.mark.parametrize("shift", [0, 1, -1, 2, -7, 9])
def test_rolls_along_the_batch_and_a_length(shift: int) -> None:
    """Also by more than there is."""

    def function(x: Any) -> list[Any]:
        return [tf.roll(x, shift, 0), tf.roll(x, [shift, 1, shift], [1, 2, 0])]

    check(gradients(function), {"x": Argument((None, None, 3))}, sizes=[(1, 4), (3, 1), (5, 7)])


def test_elements_repeated_in_a_sequence_of_open_length() -> None:
    check(gradients(lambda x: tf.repeat(x, [1, 3], axis=2)), {"x": Argument((None, None, 2, 2))})


def test_ranges() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.range(3, tf.shape(x)[0] * 2, 2), tf.linspace(0.0, 1.0, 5), tf.range(tf.shape(x)[0], 0, -1)]

    check(function, {"x": Argument((None, 3))})


PADDINGS = [[[0, 0], [1, 2], [0, 3]], [[2, 0], [0, 1], [1, 1]]]


@pytest.mark.parametrize("paddings", PADDINGS)
def test_padding_with_gradients(paddings: list[list[int]]) -> None:
    def function(x: Any) -> list[Any]:
        return [tf.pad(x, paddings), tf.pad(x, paddings, constant_values=1.5)]

    check(gradients(function), {"x": Argument((None, 3, 4))})


@pytest.mark.parametrize("dtype", ["int16", "int32", "uint8", "bool"])
def test_padding_of_other_dtypes(dtype: str) -> None:
    check(lambda x: tf.pad(x, [[0, 0], [1, 2]]), {"x": Argument((None, 3), dtype)}, precisions=["float32"])


@pytest.mark.parametrize("mode", ["REFLECT", "SYMMETRIC"])
def test_mirror_padding_with_gradients(mode: str) -> None:
    def function(x: Any) -> list[Any]:
        return [tf.pad(x, [[0, 0], before_after, [1, 2]], mode) for before_after in ([0, 2], [2, 1], [0, 0])]

    check(gradients(function), {"x": Argument((None, 3, 4))})


def test_permutations_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        reversed_ = [tf.reverse(x, [0]), tf.reverse(x, [1, -1])]
        rolled = [tf.roll(x, 1, 1), tf.roll(x, [-1, 5], [1, 2]), tf.roll(x, 3, 1)]
        return [*reversed_, *rolled, tf.reverse_sequence(x, [1, 3, 2], seq_axis=2, batch_axis=1)]

    check(gradients(function), {"x": Argument((None, 3, 4))})


def test_permutations_as_values() -> None:
    permutation = Argument((None,), "int32", make=lambda rng, shape: rng.permutation(shape[0]))
    check(tf.math.invert_permutation, {"p": permutation}, precisions=["float32"])

    def stitch(x: Any, y: Any) -> Any:
        return tf.dynamic_stitch([[4, 0], [[1, 2], [3, 0]]], [x, y])

    # Index 0 occurs twice, and TensorFlow gives the value that is overwritten its gradient, too.
    check(gradients(stitch, is_smooth=False), {"x": Argument((2, 3)), "y": Argument((2, 2, 3))})


@pytest.mark.parametrize(("lower", "upper"), [(-1, 0), (0, -1), (1, 2), (0, 0)])
def test_bands_with_gradients(lower: int, upper: int) -> None:
    check(gradients(lambda x: tf.linalg.band_part(x, lower, upper)), {"x": Argument((None, 4, 5))})


def test_diagonals_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [tf.linalg.diag_part(x), tf.linalg.diag(y), tf.linalg.set_diag(x, y), tf.linalg.trace(x)]

    check(gradients(function), {"x": Argument((None, 4, 4)), "y": Argument((None, 4))})
    check(gradients(tf.linalg.diag_part), {"x": Argument((None, 4, 4))})
    check(tf.linalg.diag_part, {"x": Argument((None, 3, 5))})
    check(tf.linalg.diag_part, {"x": Argument((None, 5, 3))})


def test_a_known_permutation_folds_away() -> None:
    model = check(lambda x: x[:, tf.math.invert_permutation([2, 0, 1])[0]], {"x": Argument((None, 3))})
    assert {node.op_type for node in model.graph.node} <= {"Slice", "Reshape"}


def test_square_matrices_that_follow_the_batch() -> None:
    def function(x: Any) -> list[Any]:
        products = tf.matmul(x, x, transpose_b=True)
        ones = tf.linalg.eye(tf.shape(x)[0], dtype=x.dtype)
        squares = [products * ones, tf.linalg.set_diag(products, x[:, 0]), tf.linalg.diag(x[:, 1])]
        return [tf.linalg.diag_part(products), *(tf.matmul(square, x) for square in squares)]

    check(gradients(function), {"x": Argument((None, 3))})
