"""A rewritten Keras model, and how to tell what it computes after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.passes import storage
from graphfreeze.selection import FreezePlan, load_plan

Array = npt.NDArray[Any]

# Values other than the current ones: what a lost freeze computes is something else from the first step on.
SELECTORS = ("net/hidden/kernel[:, :3] := 0.75", "net/out/kernel[2] := -0.5", "net/out/bias := 0.25", "net/bn/gamma[1]")


@dataclass(frozen=True)
class Rewritten:
    """An exported model, and the OUT of its rewrite.

    Attributes:
        original: The exported model.
        out: The OUT.
        plan: What is frozen.
        x: Inputs.
        y: Their classes.
    """

    original: Path
    out: Path
    plan: FreezePlan
    x: Array
    y: Array

    @property
    def saved_model(self) -> Path:
        """The rewritten model."""
        return self.out / "saved_model"

    def initial(self) -> dict[str, Array]:
        """Object path -> value before training, of every variable that functions capture."""
        return values(tf.saved_model.load(str(self.saved_model)))

    def check_trained(self, trained: dict[str, Array], outputs: Array) -> None:
        """Hold a trained model against the original one.

        Args:
            trained: Object path -> what the trained model's variables hold.
            outputs: What it computes of `x`.
        """
        initial = self.initial()
        reference = tf.saved_model.load(str(self.original))
        variables = by_path(reference)
        for path, value in trained.items():
            variables[path].assign(value)
        thawed = reference.serve(self.x).numpy()
        moved = set()
        for entry in self.plan.variables:
            path = entry.variable.object_path
            trainable = np.array(entry.full_mask)
            assert np.all(trained[path][trainable] != initial[path][trainable]), path
            if np.any(trained[path][~trainable] != initial[path][~trainable]):
                moved.add(path)
            variables[path].assign(np.where(trainable, trained[path], entry.value))
        # The original model with the trained values where trainable, and the frozen ones elsewhere, computes the same.
        assert reference.serve(self.x).numpy().tobytes() == outputs.tobytes()
        # Weight decay did move what lies behind the frozen elements: without masked reads, the outputs would differ.
        assert moved
        assert thawed.tobytes() != outputs.tobytes()


def by_path(loaded: Any) -> dict[str, Any]:
    """Object path -> variable, of a loaded export."""
    return {f"variables/{i}": variable for i, variable in enumerate(loaded.variables)}


def values(loaded: Any) -> dict[str, Array]:
    """Object path -> value, of a loaded export."""
    return {path: variable.numpy() for path, variable in by_path(loaded).items()}


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("downstream") / "model"
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, activation="tanh", name="hidden"),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dense(3, name="out", bias_initializer="random_normal"),
    ]
    model = keras.Sequential([keras.Input((4,), name="x"), *layers], name="net")
    model.export(path, verbose=False)
    return path


def rewrite(original: Path, out: Path) -> Rewritten:
    selections = [graphfreeze.Selection("freeze", text) for text in SELECTORS]
    graphfreeze.rewrite(original, out, selections, onnx=False, checks="static")
    make = np.random.default_rng(0)
    x, y = make.normal(size=(32, 4)).astype(np.float32), make.integers(0, 3, 32)
    return Rewritten(original, out, load_plan(out / "plan"), x, y)


@pytest.fixture(scope="session")
def in_graph(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    """The rewritten model, with masks and frozen values as constants."""
    return rewrite(original, tmp_path_factory.mktemp("in_graph") / "out")


@pytest.fixture(scope="session")
def stored(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    """The rewritten model, with masks and frozen values as variables, as large models have them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.Storage, "__init__", lambda self: self.__dict__.update(total=0, each=0))
        return rewrite(original, tmp_path_factory.mktemp("stored") / "out")


@pytest.fixture(params=["in_graph", "stored"])
def rewritten(request: pytest.FixtureRequest) -> Rewritten:
    """Both of them."""
    found: Rewritten = request.getfixturevalue(request.param)
    return found
