"""A rewritten model with its training step, made once."""

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

Array = npt.NDArray[Any]

SELECTORS = ("**/hidden/kernel[:, 1:]", "**/out/kernel where abs(w) > 0.3 := 0.25", "**/head/kernel")


@dataclass(frozen=True)
class Rewritten:
    """A SavedModel and the OUT of its rewrite."""

    original: Path
    out: Path
    x: Array

    @property
    def saved_model(self) -> Path:
        return self.out / "saved_model"


@pytest.fixture(scope="session")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    directory = tmp_path_factory.mktemp("folding")
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(3, activation="relu", name="hidden"),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dense(4, name="out"),
        keras.layers.Dense(2, name="head"),
    ]
    model = keras.Sequential([keras.Input((5,), name="x"), *layers], name="net")
    model.export(directory / "model", verbose=False)
    graphfreeze.rewrite(
        directory / "model",
        directory / "out",
        [graphfreeze.Selection("freeze", text) for text in SELECTORS],
        loss="mean_squared_error",
        checks="none",
    )
    return Rewritten(directory / "model", directory / "out", np.random.default_rng(0).normal(size=(7, 5)).astype("f4"))


@pytest.fixture
def trained(rewritten: Rewritten) -> Any:
    """The rewritten model, loaded, with every variable moved, frozen elements too, as weight decay would."""
    loaded = tf.saved_model.load(str(rewritten.saved_model))
    for i, variable in enumerate(loaded.variables):
        variable.assign(tf.abs(variable) * 0.75 + 0.01 * (i + 1))
    return loaded
