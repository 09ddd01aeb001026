"""bfloat16: computed in float32 and rounded, result by result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, gradients, lower, session

UNIT = 2.0**-8


def run(function: Callable[..., Any], arguments: Mapping[str, Argument]) -> tuple[list[Any], list[Any], Any]:
    """TensorFlow's results, onnxruntime's, and the model. The arguments are float32."""
    concrete, proto = lower(function, arguments)
    rng = np.random.default_rng(0)
    batch = {name: argument.draw(rng, 5, 1, "float32") for name, argument in arguments.items()}
    expected = [tensor.numpy() for tensor in concrete(*map(tf.constant, batch.values()))]
    return expected, session(proto).run(None, batch), proto


def to_bfloat16(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """The function of bfloat16 numbers, for float32 arguments and results."""

    def compute(*arguments: Any) -> list[Any]:
        results = function(*(tf.cast(argument, tf.bfloat16) for argument in arguments))
        return [tf.cast(result, tf.float32) for result in results]

    return compute


def test_each_result_is_rounded() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [x + y, x * y, tf.maximum(x, y), (x + y) * y - x, tf.concat([x, x * y], 1), tf.cast(x > y, x.dtype) * x]

    expected, found, _ = run(to_bfloat16(function), {"x": Argument((None, 4)), "y": Argument((None, 4))})
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(ours, ours.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_a_network_with_gradients() -> None:
    def function(x: Any, kernel: Any, weights: Any) -> list[Any]:
        hidden = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME"))
        hidden = tf.reshape(tf.nn.max_pool2d(hidden, 2, 2, "VALID"), [-1, 12])
        return [tf.nn.log_softmax(tf.tanh(hidden @ weights))]

    shapes = {"x": (None, 4, 4, 2), "kernel": (3, 3, 2, 3), "weights": (12, 3)}
    arguments = {name: Argument(shape) for name, shape in shapes.items()}
    expected, found, proto = run(gradients(to_bfloat16(function)), arguments)
    assert len(found) > 1
    for ours, theirs in zip(found, expected, strict=True):
        assert np.max(np.abs(ours - theirs)) <= 4 * UNIT * np.max(np.abs(theirs))
    assert not any(node.op_type == "Conv" and bfloat16_inputs(proto, node) for node in proto.graph.node)


def bfloat16_inputs(proto: onnx.ModelProto, node: Any) -> bool:
    inferred = onnx.shape_inference.infer_shapes(proto)
    types = {info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info}
    return any(types.get(name) == onnx.TensorProto.BFLOAT16 for name in node.input)


def test_a_loop_carries_bfloat16() -> None:
    def function(x: Any) -> list[Any]:
        half = tf.cast(x, tf.bfloat16)
        rows = tf.map_fn(lambda row: tf.tanh(row) * tf.cast(0.3, tf.bfloat16), half)
        total = tf.while_loop(lambda i, _: i < 3, lambda i, s: (i + 1, s * half + half), [0, half])[1]
        return [tf.cast(rows, tf.float32), tf.cast(total, tf.float32)]

    expected, found, _ = run(function, {"x": Argument((4, 3))})
    for ours, theirs in zip(found, expected, strict=True):
        assert np.max(np.abs(ours - theirs)) <= 2 * UNIT * np.max(np.abs(theirs))


def test_dropout_draws_the_same_bits() -> None:
    def function(x: Any) -> list[Any]:
        uniform = tf.random.stateless_uniform(tf.shape(x), [1, 2], dtype=tf.bfloat16)
        kept = tf.nn.experimental.stateless_dropout(tf.cast(x, tf.bfloat16), 0.4, [3, 4], rng_alg="auto_select")
        return [tf.cast(uniform, tf.float32), tf.cast(kept, tf.float32)]

    expected, found, _ = run(function, {"x": Argument((None, 7))})
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_inputs_and_results_stay_bfloat16() -> None:
    arguments = {"x": Argument((None, 3), "bfloat16")}
    _, proto = lower(lambda x: [x * x, tf.cast(x, tf.float32)], arguments)
    kinds = [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)]
    assert kinds == [onnx.TensorProto.BFLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT]


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32])
def test_other_precisions_are_left_alone(dtype: Any) -> None:
    _, proto = lower(lambda x: [tf.cast(x, dtype) * 2], {"x": Argument((None, 3))})
    assert sum(node.op_type == "Cast" for node in proto.graph.node) == int(dtype == tf.float16)
