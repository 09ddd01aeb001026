"""Tiny SavedModels, each with the ways in which real ones read variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = ["MODELS", "Sample"]

Calls = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Sample:
    """A model, how to call it, and which of its variables to freeze in part."""

    save: Callable[[Path], None]
    calls: Calls
    targets: tuple[str, ...]
    signatures: Mapping[str, Mapping[str, np.ndarray[Any, Any]]]
    sparse: tuple[str, ...] = ()


def _floats(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


X = _floats(5, 4)
TOKENS = np.array([[1, 2, 2, 0], [7, 1, 3, 9]], np.int32)


def _save_dense(path: Path) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(3, activation="relu", name="hidden"), keras.layers.BatchNormalization(name="bn")]
    model = keras.Sequential([keras.Input((4,), name="x"), *layers, keras.layers.Dense(2, name="out")], name="net")
    model.export(path, verbose=False)


def _save_lstm(path: Path) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Embedding(10, 3, name="embedding"), keras.layers.LSTM(2, name="lstm")]
    model = keras.Sequential([keras.Input((4,), dtype="int32", name="tokens"), *layers], name="net")
    model.export(path, verbose=False)


def _control_flow() -> Any:
    """A model with functions of its own: traces that two models share do not survive the second save."""

    @tf.function
    def linear(x: Any, w: Any) -> Any:
        return tf.matmul(x, w)

    @tf.function
    def nested(x: Any, w: Any) -> Any:
        return linear(x, w) + 1.0

    class ControlFlow(tf.Module):
        """Shared and nested functions, conditionals, switches, loops."""

        def __init__(self) -> None:
            super().__init__()
            make = np.random.default_rng(2)
            self.a, self.b, self.c = (tf.Variable(make.normal(size=(4, 4)).astype(np.float32), name=n) for n in "abc")
            self.unused = tf.Variable([1.0, 2.0], name="unused")

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def shared(self, x: Any) -> Any:
            return linear(linear(nested(x, self.a), self.b), self.c)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def branches(self, x: Any) -> Any:
            y = tf.cond(tf.reduce_sum(x) > 0, lambda: linear(x, self.a), lambda: tf.matmul(x, self.b))
            z = tf.cond(tf.reduce_sum(x) > 1e9, lambda: linear(x, self.a), lambda: tf.matmul(x, self.b))
            index = tf.shape(x)[0] % 3
            return z + tf.switch_case(index, [lambda: y, lambda: linear(y, self.b), lambda: tf.matmul(y, self.c)])

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def loops(self, x: Any) -> Any:
            _, y = tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, tf.tanh(linear(v, self.a))), [0, x])
            return tf.map_fn(lambda row: tf.linalg.matvec(self.b, row), y)

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)], jit_compile=True)
        def compiled(self, x: Any) -> Any:
            return tf.matmul(tf.matmul(x, self.a), self.c)

    return ControlFlow()


def _save_control_flow(path: Path) -> None:
    module = _control_flow()
    signatures = {"shared": module.shared, "branches": module.branches, "loops": module.loops}
    tf.saved_model.save(module, str(path), signatures=signatures)


class Gathers(tf.Module):
    """Rows and elements, taken from resources and from whole reads."""

    def __init__(self) -> None:
        super().__init__()
        make = np.random.default_rng(3)
        self.table = tf.Variable(make.normal(size=(10, 3)).astype(np.float32), name="table")
        self.batched = tf.Variable(make.normal(size=(2, 10, 3)).astype(np.float32), name="batched")
        self.vector = tf.Variable(make.normal(size=(10,)).astype(np.float32), name="vector")
        self.indices = tf.Variable([3, 1, 1], name="indices", trainable=False)

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def rows(self, i: Any) -> Any:
        return tf.gather(self.table, i)

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def read_rows(self, i: Any) -> Any:
        return tf.gather(self.table.value(), i) * tf.gather(self.vector.value(), i)[..., None]

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def columns(self, i: Any) -> Any:
        return tf.gather(self.table.read_value(), i % 3, axis=1)

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def batches(self, i: Any) -> Any:
        return tf.gather(self.batched, i, batch_dims=1)

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def elements(self, i: Any) -> Any:
        pairs = tf.stack([i, i % 3], axis=-1)
        return tf.gather_nd(self.table, pairs) + tf.reduce_sum(tf.gather_nd(self.table, i[..., None]), -1)

    @tf.function(input_signature=[tf.TensorSpec([2, None], tf.int32)])
    def indexed(self, i: Any) -> Any:
        return tf.gather(self.table, self.indices) + tf.cast(tf.reduce_sum(i), tf.float32)


GATHERS = ("rows", "read_rows", "columns", "batches", "elements", "indexed")


def _save_gathers(path: Path) -> None:
    module = Gathers()
    tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in GATHERS})


class CustomGradients(tf.Module):
    """Gradients of their own: one that captures a read, one that captures a variable, one that recomputes."""

    def __init__(self) -> None:
        super().__init__()
        make = np.random.default_rng(4)
        self.a, self.b = (tf.Variable(make.normal(size=(4, 4)).astype(np.float32), name=n) for n in "ab")

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def captured(self, x: Any) -> Any:
        @tf.custom_gradient
        def product(x: Any, w: Any) -> Any:
            return tf.matmul(x, w), lambda dy: (2.0 * tf.matmul(dy, w, transpose_b=True), 3.0 * tf.matmul(x, dy, True))

        return product(x, self.a.read_value())

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def closed_over(self, x: Any) -> Any:
        @tf.custom_gradient
        def product(x: Any) -> Any:
            def gradient(dy: Any, variables: Any = ()) -> Any:
                return tf.matmul(dy, self.b, transpose_b=True), [tf.matmul(x, dy, True) for _ in variables]

            return tf.matmul(x, self.b), gradient

        return product(x) * tf.nn.silu(self.a[0, 0])

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def recomputed(self, x: Any) -> Any:
        return tf.recompute_grad(lambda v: tf.tanh(tf.matmul(tf.matmul(v, self.a), self.b)))(x)


CUSTOM_GRADIENTS = ("captured", "closed_over", "recomputed")


def _save_custom_gradients(path: Path) -> None:
    module = CustomGradients()
    tf.saved_model.save(module, str(path), signatures={name: getattr(module, name) for name in CUSTOM_GRADIENTS})


def _methods(names: tuple[str, ...], *arguments: Any) -> dict[str, Callable[[Any], Any]]:
    def call(name: str) -> Callable[[Any], Any]:
        return lambda loaded: getattr(loaded, name)(*(tf.constant(argument) for argument in arguments))

    return {name: call(name) for name in names}


MODELS: dict[str, Sample] = {
    "dense": Sample(
        _save_dense,
        _methods(("serve",), X),
        ("net/hidden/kernel", "net/bn/gamma", "net/out/bias"),
        {"serving_default": {"x": X}, "serve": {"x": X}},
    ),
    "lstm": Sample(
        _save_lstm,
        _methods(("serve",), TOKENS),
        (
            "net/embedding/embeddings",
            "net/lstm/lstm_cell/kernel",
            "net/lstm/lstm_cell/recurrent_kernel",
        ),
        {"serving_default": {"tokens": TOKENS}},
        sparse=("net/embedding/embeddings",),
    ),
    "control_flow": Sample(
        _save_control_flow,
        _methods(("shared", "branches", "loops", "compiled"), X)
        | {f"{n} of one": c for n, c in _methods(("branches",), -X[:1]).items()},
        ("a", "b"),
        {"shared": {"x": X}, "branches": {"x": X[:4]}, "loops": {"x": X}},
    ),
    "gathers": Sample(
        _save_gathers,
        _methods(GATHERS, TOKENS),
        ("table", "batched", "vector"),
        {name: {"i": TOKENS} for name in GATHERS},
        sparse=("table", "vector"),
    ),
    "custom_gradients": Sample(
        _save_custom_gradients,
        _methods(CUSTOM_GRADIENTS, X),
        ("a", "b"),
        {name: {"x": X} for name in CUSTOM_GRADIENTS},
    ),
}
