"""Losses that TensorFlow has as one operation, with their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.dirichlet(np.ones(shape[-1]), shape[:-1])


def test_cross_entropy_of_probabilities() -> None:
    def function(logits: Any, labels: Any) -> list[Any]:
        return [tf.nn.softmax_cross_entropy_with_logits(labels, logits)]

    check(
        gradients(function),
        {"logits": Argument((None, 5)), "labels": Argument((None, 5), make=probabilities)},
    )


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_cross_entropy_of_labels(dtype: str) -> None:
    def function(logits: Any, labels: Any) -> list[Any]:
        return [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, 5 * logits)]

    model = check(gradients(function), {"logits": Argument((None, 5)), "labels": Argument((None,), dtype, high=5)})
    assert not any(node.op_type in ("OneHot", "MatMul", "Gemm") for node in model.graph.node)


def test_cross_entropy_of_a_sequence() -> None:
    def function(logits: Any, labels: Any) -> list[Any]:
        return [tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)]

    check(gradients(function), {"logits": Argument((None, 3, 5)), "labels": Argument((None, 3), "int64", high=5)})


def test_cross_entropy_of_logits_and_labels_that_broadcast() -> None:
    def function(logits: Any, labels: Any) -> list[Any]:
        raw = tf.raw_ops.SoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
        return [raw.loss, raw.backprop]

    check(function, {"logits": Argument((1, 5)), "labels": Argument((None, 5), make=probabilities)})


def test_binary_cross_entropy_keeps_precision_where_the_sigmoid_is_small() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        plain = -tf.math.log(tf.clip_by_value(tf.sigmoid(x), 1e-7, 1 - 1e-7))
        return [plain, tf.nn.sigmoid_cross_entropy_with_logits(y, x)]

    tails = Argument((None, 9), make=lambda rng, shape: np.resize(np.linspace(-15.5, 4, 9), shape))
    check(gradients(function, of=1), {"x": tails, "y": Argument((None, 9), make=probabilities)})
