"""Blocks of space moved to the batch or to the channels, and back, against TensorFlow."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def test_space_and_batch() -> None:
    def function(x: Any, sequence: Any, volume: Any) -> list[Any]:
        both = tf.space_to_batch(x, [2, 3], [[1, 0], [2, 2]])
        rows = tf.space_to_batch(x, [2], [[0, 1]])
        steps = tf.space_to_batch(sequence, [2], [[1, 2]])
        blocks = tf.space_to_batch(volume, [2, 1, 3], [[0, 0], [1, 1], [0, 0]])
        channels = tf.space_to_batch(x, [1, 2, 3], [[0, 0], [1, 1], [0, 0]])
        return [
            both,
            rows,
            steps,
            blocks,
            channels,
            tf.batch_to_space(both * both, [2, 3], [[0, 1], [1, 2]]),
            tf.batch_to_space(rows * rows, [2], [[0, 1]]),
            tf.batch_to_space(steps * steps, [2], [[1, 0]]),
            tf.batch_to_space(blocks * blocks, [2, 1, 3], [[1, 0], [0, 0], [0, 0]]),
            tf.batch_to_space(channels * channels, [1, 2, 3], [[0, 0], [1, 0], [0, 1]]),
        ]

    arguments = {
        "x": Argument((None, 5, 8, 3)),
        "sequence": Argument((None, 5, 2)),
        "volume": Argument((None, 4, 2, 3, 2)),
    }
    check(gradients(function), arguments)


def test_space_and_depth() -> None:
    def function(x: Any) -> list[Any]:
        deep, wide = tf.nn.space_to_depth(x, 2), tf.nn.depth_to_space(x, 2)
        return [deep, wide, deep * deep, wide * wide]

    check(gradients(function), {"x": Argument((None, 4, 6, 8))})
