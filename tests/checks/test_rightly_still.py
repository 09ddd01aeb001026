"""Steps that rightly leave trainable elements where they are pass every check; the report says how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection
from graphfreeze.errors import DataError
from tests.checks.slice_models import Array

layers = keras.layers


@pytest.fixture(scope="module")
def data() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(8, 4)).astype(np.float32), "y": rng.normal(size=(8, 2)).astype(np.float32)}


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("still") / "model"
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), name="x")
    h = layers.BatchNormalization(name="norm")(layers.Dense(5, activation="tanh", name="hidden")(x))
    graphfreeze.export(keras.Model(x, layers.Dense(2, name="out")(h)), path)
    return path


SCHEDULE = "learning_rate.initial_learning_rate=0.0,learning_rate.decay_steps=100"
STILL = (
    "ftrl:learning_rate=0.05,l1_regularization_strength=0.5",
    "adam:gradient_accumulation_steps=16",
    f"sgd:learning_rate=polynomial_decay,{SCHEDULE},learning_rate.end_learning_rate=0.1",
    "sgd:learning_rate=piecewise_constant_decay,learning_rate.boundaries=7,learning_rate.values=0.0/0.1",
    "sgd:learning_rate=1e-12",
)


@pytest.mark.parametrize("optimizer", STILL)
def test_an_optimizer_may_wait(optimizer: str, saved_model: Path, data: dict[str, Array], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=data["x"], y=data["y"])
    report = graphfreeze.rewrite(
        saved_model,
        tmp_path / "out",
        [Selection("freeze", "out/bias[0]")],
        loss="mse",
        optimizer=optimizer,
        endpoint="train",
        data=tmp_path / "data.npz",
    )
    records = report["checks"][-1]["evidence"]["parameters"]
    assert sum(record["stuck"] for record in records) == 0
    if "polynomial" not in optimizer:  # that one moves from the second step on
        assert sum(record["not_moved_rounded_away"] for record in records) > 0


@pytest.mark.parametrize("name", ["norm/moving_mean", "norm/moving_variance"])
def test_a_statistic_that_is_frozen_as_a_whole_stays(name: str, saved_model: Path, tmp_path: Path) -> None:
    report = graphfreeze.rewrite(
        saved_model, tmp_path / "out", [Selection("freeze", name)], loss="mse", endpoint="train", checks="full"
    )
    assert all(check["passed"] for check in report["checks"])
    other = {"norm/moving_mean", "norm/moving_variance"} - {name}
    assert report["training"]["mode"]["updated_statistics"] == sorted(other)


class Mixing(keras.layers.Layer):
    """A Fourier transform in the precision that TensorFlow's own Cast gives it."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.math.real(tf.signal.fft2d(tf.cast(inputs, tf.complex64)))


def test_complex_numbers_are_compared_in_double_precision(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    x = keras.Input((6, 4), name="x")
    h = layers.LayerNormalization()(Mixing()(layers.Dense(4, name="first")(x)))
    graphfreeze.export(keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(h))), tmp_path / "model")
    report = graphfreeze.rewrite(
        tmp_path / "model", tmp_path / "out", [Selection("freeze", "first/bias[0]")], loss="mse", endpoint="train"
    )
    compared = [check["evidence"]["status"] for check in report["checks"] if "float64" in check["name"]]
    assert compared == ["compared", "compared"]


def test_a_batch_without_a_finite_loss_is_refused(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    h = keras.ops.log(layers.Dense(3, kernel_initializer="identity", name="first")(x))
    graphfreeze.export(keras.Model(x, layers.Dense(1)(h)), tmp_path / "model")
    ones = np.ones((4, 3), np.float32)
    np.savez(tmp_path / "good.npz", x=ones, y=np.ones((4, 1), np.float32))
    np.savez(tmp_path / "bad.npz", x=-ones, y=np.ones((4, 1), np.float32))
    selections = [Selection("freeze", "first/bias[0]")]
    arguments: dict[str, Any] = {"loss": "mse", "endpoint": "train"}
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, data=tmp_path / "good.npz", **arguments)
    with pytest.raises(DataError, match=r"no finite number for loss and 4 more on the batch .* with --data"):
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "other", selections, data=tmp_path / "bad.npz", **arguments)
    assert not (tmp_path / "other").exists()
