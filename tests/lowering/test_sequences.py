"""Sequences of any length: a second size that only run time knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.errors import DataError, UnsupportedError, UnsupportedOperationError
from graphfreeze.lowering.model import Lowerer
from graphfreeze.lowering.sizes import Sizes
from graphfreeze.training.functionalise import functionalise
from tests.lowering.conversion import gradients, session

layers = keras.layers
SHAPES = [(3, 5), (2, 9), (1, 1), (4, 4)]


def check(function: Callable[..., Any], *specs: Any, tolerance: float = 3e-6) -> None:
    """Compare with TensorFlow at several batch sizes and lengths."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    names = [spec.name for spec in specs]
    named = functionalise(concrete, names, [f"result_{n}" for n in range(len(concrete.outputs))], {})
    run = session(ir.to_proto(Lowerer().lower(named, "test")))
    rng = np.random.default_rng(0)
    for sizes in SHAPES:
        feeds = {}
        for spec in specs:
            unknown = iter(sizes)
            shape = [next(unknown) if size is None else size for size in spec.shape]
            drawn = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 5, shape)
            feeds[spec.name] = drawn.astype(spec.dtype.as_numpy_dtype)
        expected = [t.numpy() for t in concrete(*map(tf.constant, feeds.values()))]
        ours = run.run(None, {i.name: feeds[i.name] for i in run.get_inputs()})
        for mine, theirs in zip(ours, expected, strict=True):
            assert mine.shape == theirs.shape and mine.dtype == theirs.dtype
            assert np.abs(mine - theirs).max(initial=0) <= tolerance * max(np.abs(theirs).max(initial=0), 1e-30), sizes


@pytest.mark.parametrize("rows", [9, 40, 200, 600])
def test_a_table_of_positions_limits_the_length(rows: int) -> None:
    """The lengths at which a graph is looked at are no longer than it allows."""

    def function(x: Any, table: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, table])
            y = tf.reduce_sum(tf.tanh(x + table[: tf.shape(x)[1]]) ** 2)
        return [y, *tape.gradient(y, [x, table])]

    specs = [tf.TensorSpec([None, None, 4], name="x"), tf.TensorSpec([rows, 4], name="table")]
    check(function, *specs)


def shapes_as_values(x: Any) -> list[Any]:
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    positions = tf.cast(tf.range(length), tf.float32)
    distance = positions[:, None] - positions[None]
    return [
        tf.reshape(x, [batch * length, 4]),
        tf.reshape(x, [length, -1]),
        tf.tile(x[:, :1], [1, length, 1]) * positions[:, None],
        tf.linalg.band_part(tf.ones([length, length]), -1, 0) * distance,
        tf.reduce_mean(x, [0, 1]) + tf.cast(batch * length * length + 3 * length - 1, tf.float32),
        x[:, length - 1],
    ]


def test_shapes_follow_two_sizes() -> None:
    check(shapes_as_values, tf.TensorSpec((None, None, 4), name="x"))


def half_of_the_length(x: Any) -> list[Any]:
    batch, length = tf.shape(x)[0], tf.shape(x)[1]
    rounded = tf.cast(tf.math.ceil(tf.cast(length, tf.float32) / 2.0), tf.float32)
    return [
        x[:, : length // 2],
        x[:, : 2 * (length // 2)],
        tf.cast(2 * (length // 2) + 2 * (batch // 2), tf.float32) + 2 * rounded + x[0, 0],
        tf.repeat(x[:, ::2], 2, axis=1),
        x[:, ::-3],
        tf.gather(x, tf.concat([tf.range(0, length, 3), tf.range(length - 1, -1, -2)], 0), axis=1),
        tf.nn.max_pool1d(tf.pad(x, [[0, 0], [0, -length % 4], [0, 0]]), 2, 4, "VALID"),
        tf.reshape(x[:, : length // 2 * 2], [batch, -1, 8]),
        tf.zeros(tf.shape(x) // [1, 3, 2]) + x[:1, :1, :2],
    ]


def test_shapes_follow_half_the_length() -> None:
    check(half_of_the_length, tf.TensorSpec((None, None, 4), name="x"))


def test_windows_of_any_length() -> None:
    def function(x: Any) -> list[Any]:
        x = tf.pad(x, [[0, 0], [0, 3], [0, 0]])
        frames = tf.signal.frame(x[:, :, 0], 4, 2)
        return [frames * frames, tf.abs(tf.signal.stft(x[:, :, 1] + 0.5, 4, 2))]

    check(gradients(function), tf.TensorSpec((None, None, 4), name="x"))


def test_attention_with_gradients() -> None:
    weights = tf.constant(np.random.default_rng(1).normal(size=(2, 4, 6)), tf.float32)

    def attend(x: Any) -> Any:
        query, key = x @ weights[0], x @ weights[1]
        scores = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 2.0)
        return tf.matmul(scores, x) + tf.reduce_mean(x, 1, keepdims=True)

    check(gradients(attend), tf.TensorSpec((None, None, 4), name="x"), tolerance=2e-5)


def language_model() -> Any:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(7, 8, mask_zero=True, name="embedding")(tokens)
    h = h + layers.MultiHeadAttention(2, 4, name="attention")(h, h, use_causal_mask=True)
    h = layers.LayerNormalization(name="norm")(h)
    h = layers.Dropout(0.2, seed=1, name="drop")(layers.Dense(8, activation="gelu", name="dense")(h))
    return keras.Model(tokens, layers.Dense(7, name="out")(h), name="language")


def recurrent_model() -> Any:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(7, 8, mask_zero=True, name="embedding")(tokens)
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True, dropout=0.2, seed=1), name="both")(h)
    h = layers.LSTM(5, return_sequences=True, name="lstm")(h)
    return keras.Model(tokens, layers.Dense(7, name="out")(h), name="recurrent")


class Crop(keras.layers.Layer):
    """Cuts sequences to the length of others."""

    def call(self, pair: Any) -> Any:
        return pair[0][:, : tf.shape(pair[1])[1]]


def convolutional_model() -> Any:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    h = layers.Embedding(7, 8, name="embedding")(tokens)
    h = layers.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu", name="dilated")(h)
    halves = layers.Conv1D(6, 3, strides=2, padding="same", activation="relu", name="halves")(h)
    both = layers.UpSampling1D(2, name="twice")(layers.MaxPooling1D(3, 1, padding="same", name="pool")(halves))
    h = layers.Concatenate(name="both")([h, Crop(name="crop")([both, h])])
    return keras.Model(tokens, layers.Dense(7, name="out")(h), name="convolutional")


@pytest.mark.parametrize(("make", "first"), [(language_model, 1), (recurrent_model, 0), (convolutional_model, 0)])
def test_a_model_trains_on_sequences_of_any_length(tmp_path: Path, make: Callable[[], Any], first: int) -> None:
    keras.utils.set_random_seed(1)
    model = make()
    graphfreeze.export(model, tmp_path / "model")
    loss = "sparse_categorical_crossentropy:from_logits=true"
    arguments: dict[str, Any] = {"loss": loss, "endpoint": "train", "optimizer": "sgd:learning_rate=0.1"}
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [Selection("freeze", "out/bias")], **arguments)
    trainer = Trainer(tmp_path / "out", device="cpu")
    assert {e.name: e.shape for e in trainer.artifact.manifest.batch} == {
        "tokens": ("batch", "length"),
        "y": ("batch", "length"),
    }
    model.get_layer("out").bias.trainable = False
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), crossentropy, jit_compile=False)
    rng = np.random.default_rng(0)
    for shape in ((4, 5), (2, 11), (3, 1), (2, 8)):
        tokens, y = rng.integers(first, 7, (2, *shape))
        expected = float(model.train_on_batch(tokens.astype(np.int32), y))
        assert trainer.step({"tokens": tokens, "y": y}) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(DataError, match="'length' is 4 in tokens and 5 in y"):
        trainer.step({"tokens": np.ones((2, 4), np.int32), "y": np.ones((2, 5), np.int64)})


def test_what_is_refused_says_what_to_do() -> None:
    sequence = tf.TensorSpec((None, None, 4), name="x")
    with pytest.raises(UnsupportedOperationError, match="a size is no polynomial of the batch, the length"):
        check(lambda x: tf.repeat(x[::2], 2, axis=0), sequence)
    with pytest.raises(UnsupportedOperationError, match="depends on values that are known only at run time"):
        check(lambda x: x[: 2 * (tf.shape(x)[0] // 2)], sequence)
    with pytest.raises(UnsupportedOperationError, match="along an axis that follows the length of sequences"):
        check(lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0]], "REFLECT"), sequence)
    with pytest.raises(
        UnsupportedOperationError, match="a stride of 2 over an axis that follows the length of sequences"
    ):
        check(lambda x: tf.nn.max_pool1d(tf.repeat(x, 3, axis=1), 2, 2, "SAME"), sequence)
    with pytest.raises(UnsupportedOperationError, match=r"fit for some sizes only \(not .* 307, 4\) and .* 154, 4\)"):
        check(lambda x: x + tf.nn.max_pool1d(x, 2, 2, "SAME"), sequence)
    with pytest.raises(UnsupportedError, match="export the model with fixed sizes for the other axes"):
        check(lambda x: x, tf.TensorSpec((None, None, None, 3), name="x"))


def test_polynomials_of_the_sizes() -> None:
    sizes = Sizes.of_sequences()
    batch, length = (np.array(sizes.samples[name]) for name in ("batch", "length"))

    def fit(values: Any) -> Any:
        found = sizes.fit([np.asarray(value) for value in values])
        return None if found is None else {name: factor.tolist() for name, factor in found.items()}

    assert fit(3 * batch * length - length + 7) == {(): 7, ("length",): -1, ("batch", "length"): 3}
    assert fit(np.stack([batch, 2 * length**2], 1)) == {("batch",): [1, 0], ("length", "length"): [0, 2]}
    assert fit(length // 2) is None and fit(batch**2) is None and fit(batch / 2) is None
    assert sizes.name(tuple(length.tolist())) == "length" and sizes.name((4,) * len(batch)) is None
