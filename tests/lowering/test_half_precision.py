"""float16, which onnxruntime's CPU kernels lack in many places: it casts there, or the rules do."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

# Both sides round intermediate results to 11 bits, not always at the same places.
TOLERANCE = {"float16": 4 * 2.0**-11}


def test_common_operations_with_gradients() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        activations = [tf.nn.relu(x) * y, tf.nn.gelu(x), tf.nn.softmax(x), tf.nn.sigmoid(x), tf.tanh(x)]
        reductions = [tf.reduce_mean(x, 0), tf.reduce_max(x, 1), tf.cumsum(x, 1)]
        arrays = [
            tf.where(x > y, x, y),
            tf.pad(x, [[0, 0], [1, 2]]),
            tf.concat([x, y], 1),
            x[:, ::2],
            tf.split(x, 2, 1)[0],
        ]
        return [*activations, *reductions, *arrays, tf.matmul(x[:, :, None], y[:, None]), tf.gather(x, [1, 0], axis=1)]

    operands = {"x": Argument((None, 4)), "y": Argument((None, 4))}
    check(gradients(function), operands, precisions=["float16"], tolerance=TOLERANCE)


def test_losses_and_scatters_with_gradients() -> None:
    def function(x: Any, y: Any, labels: Any) -> list[Any]:
        soft = tf.nn.softmax_cross_entropy_with_logits(tf.stop_gradient(tf.nn.softmax(y)), x)
        sparse = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x)
        scattered = tf.math.unsorted_segment_sum(x, labels, 4), tf.scatter_nd(labels[:, None], x, [4, 4])
        return [soft, sparse, *scattered, tf.one_hot(labels, 4, dtype=x.dtype), tf.math.top_k(x, 2).values]

    operands = {"x": Argument((None, 4)), "y": Argument((None, 4)), "labels": Argument((None,), "int32", high=4)}
    check(gradients(function), operands, precisions=["float16"], tolerance=TOLERANCE)
