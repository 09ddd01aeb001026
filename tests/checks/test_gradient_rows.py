"""The gradient of an embedding reaches the optimizer as Keras' fit hands it over: row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.consistency import check_manifest
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.arguments import Configured
from graphfreeze.training.gradient_rows import cut_rows, takes_rows
from graphfreeze.training.optimizers import OPTIMIZERS, parse_optimizer

layers, optimizers = keras.layers, keras.optimizers

WORDS, WIDTH, LENGTH, BATCH, STEPS = 9, 3, 5, 4, 5
TABLE = "words/embeddings"
NOTHING = [Selection("freeze", "fixed/kernel"), Selection("freeze", "fixed/bias")]
"""What does not train in Keras either."""

Array = npt.NDArray[Any]


def small_model() -> Any:
    """Two tables that are looked up differently often, of which one is also read as a whole."""
    keras.utils.set_random_seed(3)
    x, z = keras.Input((LENGTH,), dtype="int32", name="x"), keras.Input((2,), dtype="int64", name="z")
    table = layers.Embedding(WORDS, WIDTH, name="words")
    both = layers.Concatenate()([layers.Flatten()(table(x)), layers.Flatten()(layers.Embedding(4, 2, name="kinds")(z))])
    hidden = layers.Dense(6, activation="tanh", name="hidden")(both)
    fixed = layers.Dense(6, trainable=False, name="fixed")(hidden)
    return keras.Model([x, z], layers.Dense(2, name="out")(fixed))


def batches() -> list[dict[str, Array]]:
    rng = np.random.default_rng(5)
    return [
        {
            "x": rng.integers(0, WORDS - 1, (BATCH, LENGTH)).astype(np.int32),
            "z": rng.integers(0, 4, (BATCH, 2)),
            "y": rng.normal(size=(BATCH, 2)).astype(np.float32),
        }
        for _ in range(STEPS)
    ]


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "model"
    graphfreeze.export(small_model(), path)
    return path


def rewrite(saved_model: Path, out: Path, optimizer: str, *freeze: str, checks: Any = "none") -> Path:
    selections = [*NOTHING, *(Selection("freeze", selector) for selector in freeze)]
    graphfreeze.rewrite(saved_model, out, selections, loss="mse", optimizer=optimizer, endpoint="train", checks=checks)
    return out


CASES: dict[str, Callable[[], Any]] = {
    "adam:learning_rate=0.01": lambda: optimizers.Adam(0.01),
    "adam:learning_rate=0.01,global_clipnorm=0.1": lambda: optimizers.Adam(0.01, global_clipnorm=0.1),
    "adam:learning_rate=0.01,loss_scale=dynamic": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.01)),
    "adam:learning_rate=0.01,gradient_accumulation_steps=2": lambda: optimizers.Adam(
        0.01, gradient_accumulation_steps=2
    ),
    "adadelta:learning_rate=10.0": lambda: optimizers.Adadelta(10.0),
    "adafactor:learning_rate=0.1": lambda: optimizers.Adafactor(0.1),
    "adagrad:learning_rate=0.1": lambda: optimizers.Adagrad(0.1),
    "adamax:learning_rate=0.01": lambda: optimizers.Adamax(0.01),
    "ftrl:learning_rate=0.1": lambda: optimizers.Ftrl(0.1),
    "muon:learning_rate=0.01": lambda: optimizers.Muon(0.01),
    "rmsprop:learning_rate=0.01,momentum=0.5,centered=true": lambda: optimizers.RMSprop(
        0.01, momentum=0.5, centered=True
    ),
    "sgd:learning_rate=0.1,clipvalue=0.01": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "sgd:learning_rate=0.1,clipnorm=0.1": lambda: optimizers.SGD(0.1, clipnorm=0.1),
}


@pytest.mark.parametrize("optimizer", CASES)
def test_the_steps_are_those_of_fit(optimizer: str, saved_model: Path, tmp_path: Path) -> None:
    trainer = Trainer(rewrite(saved_model, tmp_path / "out", optimizer), device="cpu")
    model = small_model()
    model.compile(CASES[optimizer](), "mse", jit_compile=False)
    before = {name: model.get_layer(name).embeddings.numpy() for name in ("words", "kinds")}
    for batch in batches():
        model.fit([batch["x"], batch["z"]], batch["y"], batch_size=BATCH, verbose=0)
        trainer.step(batch)
    weights = trainer.weights()
    for name, start in before.items():
        expected = model.get_layer(name).embeddings.numpy()
        moved = float(np.abs(expected - start).max())
        assert moved > 1e-3
        np.testing.assert_allclose(weights[f"{name}/embeddings"], expected, rtol=0, atol=2e-5 * moved, err_msg=name)


@pytest.mark.parametrize("optimizer", ["adam:global_clipnorm=0.1", "rmsprop", "adadelta", "adafactor"])
@pytest.mark.parametrize("freeze", [f"{TABLE}[[1, 2, 5]]", f"{TABLE}[:, 1]", f"{TABLE}[2, 1]"])
def test_every_check_passes(optimizer: str, freeze: str, saved_model: Path, tmp_path: Path) -> None:
    """The checks take TensorFlow's step on the whole variables, from its own state."""
    artifact = read_artifact(rewrite(saved_model, tmp_path / "out", optimizer, freeze, checks="full"))
    inputs = artifact.manifest.graphs["apply_gradients"].inputs
    assert {f"gradient_rows/{TABLE}", f"gradient_indices/{TABLE}", "gradient_rows/kinds/embeddings"} <= set(inputs)
    assert f"gradient/{TABLE}" not in inputs


class EitherWay(keras.layers.Layer):
    """Looks rows up in one of two branches, which give their gradient without a known shape."""

    def build(self, _: Any) -> None:
        self.table = self.add_weight(shape=(WORDS, WIDTH), name="table")

    def call(self, ids: Any) -> Any:
        few = tf.reduce_sum(ids) > 20
        return tf.cond(few, lambda: tf.gather(self.table, ids), lambda: 0.5 * tf.gather(self.table, ids))


def test_rows_may_come_from_branches(tmp_path: Path) -> None:
    x = keras.Input((LENGTH,), dtype="int32", name="x")
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(EitherWay(name="either")(x))))
    graphfreeze.export(model, tmp_path / "model")
    selections = [Selection("freeze", "either/table[1:4]")]
    graphfreeze.rewrite(
        tmp_path / "model", tmp_path / "out", selections, loss="mse", optimizer="adam", endpoint="train"
    )


def test_a_divisor_may_underflow(tmp_path: Path) -> None:
    """Adafactor's does in rows that are looked up nowhere, at which Keras' own `fit` stops."""
    keras.utils.set_random_seed(3)
    x = keras.Input((LENGTH,), dtype="int32", name="x")
    table = layers.Embedding(5000, WIDTH, name="words")
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(table(x))))
    graphfreeze.export(model, tmp_path / "model")
    out = tmp_path / "out"
    selections = [Selection("freeze", "words/embeddings[7]")]
    graphfreeze.rewrite(tmp_path / "model", out, selections, loss="mse", optimizer="adafactor", endpoint="train")
    trainer, before = Trainer(out, device="cpu"), table.embeddings.numpy()
    ids = np.array([[1, 1, 2, 3, 7]], np.int32)
    trainer.step({"x": ids, "y": np.ones((1, 2), np.float32)})
    after = trainer.weights()["words/embeddings"]
    assert np.isfinite(after).all()
    assert sorted(set(np.flatnonzero((before != after).any(axis=1)).tolist())) == [1, 2, 3]


def test_a_whole_gradient_is_rows_of_every_index(saved_model: Path, tmp_path: Path) -> None:
    artifact = read_artifact(rewrite(saved_model, tmp_path / "out", "adam"))
    gradients, apply = (GraphRunner(artifact, name, choose_device("cpu")) for name in ("gradients", "apply_gradients"))
    found = gradients({**artifact.state, **batches()[0]})
    whole, rows, indices = (found[f"gradient{part}/{TABLE}"] for part in ("", "_rows", "_indices"))
    summed = np.zeros_like(whole)
    np.add.at(summed, indices, rows)
    np.testing.assert_allclose(summed, whole, rtol=1e-6, atol=1e-9)
    assert rows.shape == (BATCH * LENGTH, WIDTH)

    by_rows = apply({**artifact.state, **found})
    everything = np.arange(WORDS, dtype=indices.dtype)
    at_once = apply(
        {**artifact.state, **found, f"gradient_rows/{TABLE}": whole, f"gradient_indices/{TABLE}": everything}
    )
    velocity = f"new/adam/{TABLE}/velocity"
    np.testing.assert_allclose(at_once[velocity], 0.001 * whole**2, rtol=1e-4, atol=1e-12)
    squares = np.zeros_like(whole)
    np.add.at(squares, indices, rows**2)
    np.testing.assert_allclose(by_rows[velocity], 0.001 * squares, rtol=1e-4, atol=1e-12)
    assert np.abs(squares - whole**2).max() > 0.1 * np.abs(squares).max()


def test_the_manifest_needs_both(saved_model: Path, tmp_path: Path) -> None:
    manifest = read_artifact(rewrite(saved_model, tmp_path / "out", "adam")).manifest
    assert check_manifest(manifest) == []
    outputs = manifest.graphs["gradients"].outputs
    lacking = tuple(name for name in outputs if name != f"gradient_indices/{TABLE}")
    object.__setattr__(manifest.graphs["gradients"], "outputs", lacking)
    assert check_manifest(manifest) == [f"gradients.onnx lacks the output gradient_indices/{TABLE}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, name not in ("lion", "sgd")) for name in OPTIMIZERS),
        ("sgd:clipnorm=1.0", True),
        ("lion:clipvalue=0.1", True),
        ("sgd:global_clipnorm=1.0", True),
        ("adam:gradient_accumulation_steps=2", False),
        ("rmsprop:epsilon=0.0", False),
    ],
)
def test_who_takes_rows(text: str, expected: bool) -> None:
    optimizer: Configured = parse_optimizer(text)
    assert takes_rows(optimizer) is expected


def test_rows_of_frozen_slices_are_zero() -> None:
    rows = np.arange(1, 9, dtype=np.float32).reshape(4, 2)
    found, positions = cut_rows(TrainedSlices(0, 5, np.array([1, 4])), rows, np.array([4, 0, 1, 4], np.int32))
    assert found.tolist() == [[1, 2], [0, 0], [5, 6], [7, 8]]
    assert positions.tolist() == [1, 0, 0, 1]
    assert positions.dtype == np.int32
    columns, same = cut_rows(TrainedSlices(1, 2, np.array([1])), rows, np.array([4, 0, 1, 4]))
    assert columns.tolist() == [[2], [4], [6], [8]]
    assert same.tolist() == [4, 0, 1, 4]
