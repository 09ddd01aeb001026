"""Weights that an optimizer averages over the steps: Keras' `fit` ends with the averages, and so does `fold`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import graphfreeze

from .conftest import Array, Rewritten

STEPS, MOMENTUM = 4, 0.75


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rewritten model with a kernel that is too large to share a tensor with others."""
    directory = tmp_path_factory.mktemp("averaged")
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(300, "tanh", name="hidden"), keras.layers.BatchNormalization(name="bn")]
    model = keras.Sequential([keras.Input((300,), name="x"), *layers, keras.layers.Dense(2, name="out")], name="net")
    model.export(directory / "model", verbose=False)
    graphfreeze.rewrite(
        directory / "model",
        directory / "out",
        [graphfreeze.Selection("freeze", text) for text in ("**/hidden/kernel[1:, 1:]", "**/out/kernel[0, 0]")],
        loss="mean_squared_error",
        optimizer=f"adam:learning_rate=0.1,use_ema=true,ema_momentum={MOMENTUM}",
        checks="none",
    )
    return directory / "out"


def test_averages_take_the_place_of_the_weights(averaged: Path, tmp_path: Path) -> None:
    trainer = graphfreeze.Trainer(averaged, device="cpu")
    kinds = {entry.name for entry in trainer.artifact.manifest.state if entry.name.endswith("/average")}
    assert "adam/flat/average" in kinds
    assert len(kinds) == 2
    initial = trainer.weights(averages=True)
    assert all((initial[name] == value).all() for name, value in trainer.weights().items())
    random = np.random.default_rng(0)
    batch = {"x": random.normal(size=(7, 300)).astype("f4"), "y": np.zeros((7, 2), np.float32)}
    parameters = {entry.name for entry in trainer.artifact.manifest.state if entry.role == "parameter"}
    expected: dict[str, Array] = {}
    for step in range(STEPS):
        trainer.step(batch)
        for name, value in trainer.weights().items():
            kept = MOMENTUM if step and name in parameters else 0.0
            expected[name] = kept * expected.get(name, value) + (1 - kept) * value
    found, last = trainer.weights(averages=True), trainer.weights()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    hidden, out = (next(name for name in found if name.endswith(f"{layer}/kernel")) for layer in ("hidden", "out"))
    assert (found[hidden][1:, 1:] == initial[hidden][1:, 1:]).all()
    assert found[out][0, 0] == initial[out][0, 0]
    assert (found[out] != last[out]).sum() == found[out].size - 1
    trainer.save(tmp_path / "state.safetensors")
    choices: list[tuple[Literal["averages", "last"] | None, dict[str, Array]]]
    choices = [(None, found), ("averages", found), ("last", last)]
    for weights, values in choices:
        report = graphfreeze.fold(
            averaged, tmp_path / "deploy", state=tmp_path / "state.safetensors", weights=weights, overwrite=True
        )
        assert report["weights"] == (weights or "averages")
        loaded = tf.saved_model.load(str(tmp_path / "deploy"))
        outputs = loaded.serve(batch["x"]).numpy()
        session = onnxruntime.InferenceSession(tmp_path / "deploy" / "model.onnx", providers=["CPUExecutionProvider"])
        (inference,) = session.run(None, {"x": batch["x"]})
        hidden_layer = np.tanh(batch["x"] @ values[hidden] + values[hidden.replace("kernel", "bias")])
        mean, variance, gamma, beta = (
            values[next(name for name in values if name.endswith(f"bn/{part}"))]
            for part in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        scaled = (hidden_layer - mean) / np.sqrt(variance + 1e-3) * gamma + beta
        computed = scaled @ values[out] + values[out.replace("kernel", "bias")]
        np.testing.assert_allclose(outputs, computed, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inference, computed, rtol=1e-4, atol=1e-5)


def test_averages_that_are_not_there_are_not_taken(averaged: Path, rewritten: Rewritten, tmp_path: Path) -> None:
    graphfreeze.Trainer(averaged, device="cpu").save(tmp_path / "new.safetensors")
    graphfreeze.Trainer(rewritten.out, device="cpu").save(tmp_path / "plain.safetensors")
    saved = tmp_path / "saved"
    tf.saved_model.save(tf.saved_model.load(str(averaged / "saved_model")), str(saved))
    for out, state in (
        (averaged, tmp_path / "new.safetensors"),
        (rewritten.out, tmp_path / "plain.safetensors"),
        (averaged, saved),
    ):
        assert graphfreeze.fold(out, tmp_path / "deploy", state=state, overwrite=True)["weights"] == "last"
        with pytest.raises(graphfreeze.DataError, match="averages"):
            graphfreeze.fold(out, tmp_path / "none", state=state, weights="averages")
        assert not (tmp_path / "none").exists()
