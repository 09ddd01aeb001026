"""Constraints of a model's variables are part of the training step, and frozen elements stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import graphfreeze
from graphfreeze import Selection, Trainer
from graphfreeze.artifact import read_artifact

layers = keras.layers

FROZEN: dict[str, Any] = {
    "hidden/kernel": (slice(None), 1),
    "out/kernel": (0, 0),
    "words/embeddings": ([1, 2], slice(None)),
}
"""A column, an element, and rows."""


class Beside(keras.constraints.Constraint):
    """A constraint, for a variable of which some elements stay what they were."""

    def __init__(self, variable: Any, index: Any) -> None:
        self.base, self.index = variable.constraint, index
        self.before = variable.numpy()

    def __call__(self, w: Any) -> Any:
        frozen = np.zeros(w.shape, bool)
        frozen[self.index] = True
        w = keras.ops.where(frozen, self.before, w)
        return keras.ops.where(frozen, self.before, w if self.base is None else self.base(w))


def constrained_model() -> Any:
    keras.utils.set_random_seed(7)
    words = keras.Input((4,), dtype="int32", name="words_in")
    h = layers.Embedding(9, 3, embeddings_constraint=keras.constraints.UnitNorm(axis=1), name="words")(words)
    h = layers.Conv1D(
        4, 2, kernel_constraint=keras.constraints.MinMaxNorm(0.2, 0.6, rate=0.5, axis=[0, 1]), name="conv"
    )(h)
    h = layers.Flatten()(h)
    h = layers.Dense(
        5,
        "tanh",
        kernel_constraint=keras.constraints.MaxNorm(0.8),
        bias_constraint=keras.constraints.NonNeg(),
        name="hidden",
    )(h)
    return keras.Model(words, layers.Dense(2, kernel_constraint="non_neg", name="out")(h))


def batches() -> list[dict[str, Any]]:
    rng = np.random.default_rng(8)
    return [
        {"words_in": rng.integers(0, 9, (6, 4)).astype(np.int32), "y": rng.normal(size=(6, 2)).astype(np.float32)}
        for _ in range(5)
    ]


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd:learning_rate=0.3,momentum=0.9": lambda: keras.optimizers.SGD(0.3, momentum=0.9),
    "adamw:learning_rate=0.05,weight_decay=0.1": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
    "sgd:learning_rate=0.1,gradient_accumulation_steps=2": lambda: keras.optimizers.SGD(
        0.1, gradient_accumulation_steps=2
    ),
    "adam:learning_rate=0.05,loss_scale=dynamic": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.05)
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_steps_are_those_of_fit(optimizer: str, tmp_path: Path) -> None:
    model = constrained_model()
    report = graphfreeze.export(model, tmp_path / "model")
    names = ["words/embeddings", "conv/kernel", "hidden/kernel", "hidden/bias", "out/kernel"]
    assert report["constraints"] == names
    selections = [
        Selection("freeze", text) for text in ("hidden/kernel[:, 1]", "out/kernel[0, 0]", "words/embeddings[[1, 2]]")
    ]
    made = graphfreeze.rewrite(
        tmp_path / "model", tmp_path / "out", selections, loss="mse", optimizer=optimizer, endpoint="train"
    )
    reasons = {record["name"]: record["reason"] for record in made["training"]["frozen_slices"]}
    assert reasons == dict.fromkeys(("words/embeddings", "hidden/kernel"), "its constraint sees the whole variable")
    trainer = Trainer(tmp_path / "out", device="cpu")
    by_path = {variable.path: variable for variable in model.trainable_variables}
    for name, index in FROZEN.items():
        by_path[name].constraint = Beside(by_path[name], index)
    before = {name: variable.numpy() for name, variable in by_path.items()}
    model.compile(OPTIMIZERS[optimizer](), "mse", jit_compile=False)
    for batch in batches():
        model.fit(batch["words_in"], batch["y"], batch_size=6, verbose=0)
        trainer.step(batch)
        weights = trainer.weights()
        for name, variable in by_path.items():
            np.testing.assert_allclose(weights[name], variable.numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
    for name, index in FROZEN.items():
        assert weights[name][index].tobytes() == before[name][index].tobytes()
    assert weights["hidden/bias"].min() >= 0
    assert np.linalg.norm(weights["words/embeddings"], axis=1)[3:] == pytest.approx(1.0, rel=1e-5)


def test_constraints_hold_when_the_inference_endpoint_trains(tmp_path: Path) -> None:
    graphfreeze.export(constrained_model(), tmp_path / "model")
    graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [Selection("freeze", "conv/bias")],
        loss="mse",
        optimizer="sgd:learning_rate=0.5",
        checks="none",
    )
    trainer = Trainer(tmp_path / "out", device="cpu")
    for batch in batches():
        trainer.step(batch)
        assert trainer.weights()["out/kernel"].min() >= 0
    assert "train" not in str(read_artifact(tmp_path / "out").manifest.graphs["forward"].inputs)


def test_a_frozen_variable_needs_no_constraint(tmp_path: Path) -> None:
    graphfreeze.export(constrained_model(), tmp_path / "model")
    selections = [Selection("freeze", name) for name in ("hidden/kernel", "out/kernel")]
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, loss="mse", endpoint="train")
    trainer = Trainer(tmp_path / "out", device="cpu")
    trainer.step(batches()[0])
    assert trainer.weights()["out/kernel"].min() < 0
