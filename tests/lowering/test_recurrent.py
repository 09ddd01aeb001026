"""Keras's recurrent layers: outputs, states, and the gradients of input and weights, against TensorFlow.

Sequences have a fixed length, or any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check

layers = keras.layers
SEQUENCE = (6, 3)
SIZES = ((3, 5), (2, 9), (4, 1), (1, 1), (4, 4))
TOLERANCE = {"float32": 5e-6, "float64": 1e-13}

Make = Callable[[str], Sequence[Any]]


def _rnn(name: str, **options: Any) -> Make:
    return lambda dtype: [getattr(layers, name)(4, dtype=dtype, **options)]


def _embedded(*names: str, **options: Any) -> Make:
    def make(dtype: str) -> Sequence[Any]:
        recurrent = [
            getattr(layers, name)(4, dtype=dtype, return_sequences=index < len(names) - 1, **options)
            for index, name in enumerate(names)
        ]
        return [layers.Embedding(5, 3, mask_zero=True, dtype=dtype), *recurrent]

    return make


def _step(make: Make, argument: Argument, dtype: str) -> tuple[Callable[..., Any], list[Any]]:
    """Outputs in training mode, with the gradients of their weighted sum; and the variables."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(argument.shape[1:], dtype=_dtype(argument, dtype)), *make(dtype)])
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if keras.backend.is_float_dtype(weight.dtype):
            weight.assign(rng.normal(size=weight.shape) * 0.5)
    weights = [weight.value for weight in model.trainable_weights]

    def step(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            results = tf.nest.flatten(model(x, training=True))
            loss = tf.add_n([tf.reduce_sum(r * _cosines(r)) for r in results])
        watched = [x, *weights] if x.dtype.is_floating else weights
        return [*results, *map(tf.convert_to_tensor, tape.gradient(loss, watched))]

    return step, [variable.value for variable in model.variables]


def _cosines(tensor: Any) -> Any:
    return tf.reshape(tf.cos(tf.cast(tf.range(tf.size(tensor)), tensor.dtype)), tf.shape(tensor))


def _dtype(argument: Argument, dtype: str) -> str:
    return dtype if argument.dtype == "float" else argument.dtype


def _check(make: Make, argument: Argument, dtype: str) -> onnx.ModelProto:
    step, variables = _step(make, argument, dtype)
    sizes = SIZES if None in argument.shape[1:] else SIZES[:2]
    return check(step, {"x": argument}, precisions=[dtype], variables=variables, tolerance=TOLERANCE, sizes=sizes)


def _bodies(proto: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [a.g for node in proto.graph.node for a in node.attribute if a.HasField("g")]


CASES: dict[str, Make] = {
    "lstm": _rnn("LSTM"),
    "lstm sequences and state": _rnn("LSTM", return_sequences=True, return_state=True),
    "gru": _rnn("GRU"),
    "gru sequences": _rnn("GRU", return_sequences=True),
    "gru reset before": _rnn("GRU", reset_after=False),
    "simple": _rnn("SimpleRNN"),
    "simple backwards sequences": _rnn("SimpleRNN", return_sequences=True, go_backwards=True),
    "lstm backwards": _rnn("LSTM", go_backwards=True),
    "lstm unrolled": _rnn("LSTM", unroll=True),
    "cells": lambda dtype: [layers.RNN([layers.LSTMCell(3, dtype=dtype), layers.GRUCell(2, dtype=dtype)], dtype=dtype)],
    "bidirectional sequences": lambda dtype: [
        layers.Bidirectional(layers.LSTM(3, return_sequences=True, dtype=dtype), dtype=dtype)
    ],
    "bidirectional": lambda dtype: [layers.Bidirectional(layers.GRU(3, dtype=dtype), merge_mode="sum", dtype=dtype)],
    "stacked": lambda dtype: [
        layers.LSTM(4, return_sequences=True, dtype=dtype),
        layers.GRU(3, return_sequences=True, dtype=dtype),
        layers.SimpleRNN(2, dtype=dtype),
    ],
}
MASKED: dict[str, Make] = {
    "lstm": _embedded("LSTM"),
    "gru then simple": _embedded("GRU", "SimpleRNN"),
    "zero output": _embedded("LSTM", "LSTM", zero_output_for_mask=True),
    "bidirectional": lambda dtype: [
        layers.Embedding(5, 3, mask_zero=True, dtype=dtype),
        layers.Bidirectional(layers.LSTM(3, dtype=dtype), dtype=dtype),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    _check(CASES[name], Argument((None, *SEQUENCE)), "float32")


@pytest.mark.parametrize("name", MASKED)
def test_masked(name: str) -> None:
    _check(MASKED[name], Argument((None, 6), "int32", high=5), "float32")


@pytest.mark.parametrize("name", ["lstm sequences and state", "gru", "simple backwards sequences"])
def test_double_precision(name: str) -> None:
    _check(CASES[name], Argument((None, *SEQUENCE)), "float64")


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"lstm unrolled"}))
def test_layers_on_sequences_of_any_length(name: str) -> None:
    # Keras begins a loop of several cells with states in float32.
    _check(CASES[name], Argument((None, None, 3)), "float32" if name == "cells" else "float64")


@pytest.mark.parametrize("name", MASKED)
def test_masked_sequences_of_any_length(name: str) -> None:
    _check(MASKED[name], Argument((None, None), "int32", high=5), "float32")


@pytest.mark.parametrize("length", [6, None])
def test_dropout(length: int | None) -> None:
    _check(_rnn("LSTM", dropout=0.4, recurrent_dropout=0.3), Argument((None, length, 3)), "float32")


def test_one_time_step_leaves_no_loop() -> None:
    proto = _check(_rnn("LSTM", return_sequences=True), Argument((None, 1, 3)), "float32")
    assert not _bodies(proto)


def test_convolutional() -> None:
    def make(dtype: str) -> Sequence[Any]:
        return [layers.ConvLSTM2D(2, 3, padding="same", dtype=dtype)]

    step, variables = _step(make, Argument((None, 3, 5, 5, 2)), "float32")
    check(
        step,
        {"x": Argument((None, 3, 5, 5, 2))},
        precisions=["float32"],
        variables=variables,
        tolerance={"float32": 1e-5},
    )


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize("name", ["lstm", "gru", "simple", "lstm sequences and state"])
def test_bodies_hold_only_what_changes(name: str, length: int | None) -> None:
    """Nothing in a body moves data about that could be moved once outside, and nothing is stacked by a scatter."""
    forward, backward = _bodies(_check(CASES[name], Argument((None, length, 3)), "float32"))
    for body in (forward, backward):
        counts = Counter(node.op_type for node in body.node)
        assert not counts.keys() & {"Transpose", "Gather", "ScatterND", "Expand", "Shape", "Squeeze", "Unsqueeze"}
        # The products with the input, and those that give the weights' gradients, are made once for all steps.
        assert counts["MatMul"] + counts["Gemm"] == 1
    assert len(forward.node) <= 25


def test_bodies_are_named_after_the_layer() -> None:
    forward, _ = _bodies(_check(CASES["lstm"], Argument((None, *SEQUENCE)), "float32"))
    names = [value.name for value in (*forward.input, *forward.output)]
    assert all("lstm" in name for name in names), names
    assert any(name.endswith("/state") for name in names)
