"""Losses of probabilities take the logits that Keras finds behind them, as in `fit`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, Trainer
from tests.training.models import FEATURES

layers = keras.layers


@keras.saving.register_keras_serializable("tests")
class OwnSoftmax(keras.layers.Layer):
    """TensorFlow's operation, of which Keras notes nothing."""

    def call(self, inputs: Any) -> Any:
        return tf.nn.softmax(inputs)


def net(last: Callable[[Any], Any], units: int) -> Any:
    """A model that is very sure of its answers."""
    keras.utils.set_random_seed(3)
    x = keras.Input((FEATURES,), name="x")
    scores = layers.Dense(units, kernel_initializer=keras.initializers.RandomNormal(stddev=20.0), name="scores")(x)
    return keras.Model(x, last(scores))


TWO = np.eye(2, dtype=np.float32)[[0, 1, 1, 0]]

CASES: dict[str, tuple[Callable[[Any], Any], int, str, Any]] = {
    "softmax": (layers.Activation("softmax"), 3, "sparse_categorical_crossentropy", np.array([0, 2, 1, 0])),
    "softmax layer": (layers.Softmax(), 3, "categorical_crossentropy", np.eye(3, dtype=np.float32)[[0, 2, 1, 0]]),
    "TensorFlow's softmax": (OwnSoftmax(), 3, "sparse_categorical_crossentropy", np.array([0, 2, 1, 0])),
    "TensorFlow's softmax, of each class": (
        OwnSoftmax(),
        2,
        "binary_crossentropy",
        np.eye(2, dtype=np.float32)[[0, 1, 1, 0]],
    ),
    "sigmoid": (layers.Activation("sigmoid"), 1, "binary_crossentropy", np.array([[0], [1], [1], [0]], np.float32)),
    "focal": (layers.Activation("sigmoid"), 1, "binary_focal_crossentropy", np.array([[0], [1], [1], [0]], np.float32)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_that_of_fit(case: str, tmp_path: Path) -> None:
    last, units, loss, y = CASES[case]
    model = net(last, units)
    report = graphfreeze.export(model, tmp_path / "model")
    beside = [name for name in report["endpoints"][1]["outputs"] if name != "output_0"]
    own = {"TensorFlow's softmax", "TensorFlow's softmax, of each class"}
    kind = "graphfreeze_logits_of_softmax" if case in own else "graphfreeze_logits"
    assert beside == [f"{kind}.output_0"]
    graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [Selection("freeze", "scores/bias[0]")],
        loss=loss,
        optimizer="sgd:learning_rate=0.1",
        endpoint="train",
        checks="none",
    )
    trainer = Trainer(tmp_path / "out", device="cpu")
    kernel = model.get_layer("scores").kernel
    model.get_layer("scores").bias.assign(np.zeros(units))
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    x = np.random.default_rng(1).normal(size=(4, FEATURES)).astype(np.float32)
    for _ in range(2):
        expected = model.train_on_batch(x, y)
        # The frozen element, a bias that moves here, is put back.
        bias = model.get_layer("scores").bias.numpy()
        bias[0] = 0
        model.get_layer("scores").bias.assign(bias)
        assert trainer.step({"x": x, "y": y}) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(trainer.weights()["scores/kernel"], kernel.numpy(), rtol=1e-5, atol=1e-5)


def test_other_outputs_are_probabilities(tmp_path: Path) -> None:
    """Keras finds nothing behind a sum."""
    model = net(lambda scores: layers.Activation("sigmoid")(scores) * 0.5, 1)
    assert graphfreeze.export(model, tmp_path / "model")["endpoints"][1]["outputs"] == ["output_0"]


def test_nested_outputs_are_named_by_their_paths(tmp_path: Path) -> None:
    x = keras.Input((FEATURES,), name="x")
    heads = [layers.Dense(2, activation="softmax", name=name)(layers.Dense(3)(x)) for name in ("a", "b", "c")]
    model = keras.Model(x, {"p": {"q": heads[0]}, "r": heads[1:]})
    report = graphfreeze.export(model, tmp_path / "model")
    assert report["endpoints"][0]["outputs"] == ["p/q", "r/0", "r/1"]
    graphfreeze.rewrite(
        tmp_path / "model",
        tmp_path / "out",
        [Selection("freeze", "a/bias[0]")],
        loss=["p/q=categorical_crossentropy", "r/1=mse"],
        endpoint="train",
    )
    data = {"x": np.ones((3, FEATURES), np.float32), "y.p/q": np.eye(2, dtype=np.float32)[[0, 1, 1]]}
    trainer = Trainer(tmp_path / "out", device="cpu")
    trainer.step({**data, "y.r/1": np.zeros((3, 2), np.float32)})
    expected = model(data["x"])
    trainer = Trainer(tmp_path / "out", device="cpu")
    np.testing.assert_allclose(trainer.predict({"x": data["x"]})["r/1"], expected["r"][1], rtol=1e-6)
