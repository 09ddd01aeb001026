"""Whole rewrites of models with training steps of their own, and of some endpoints only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze import Selection, UsageError, rewrite, verify
from graphfreeze.checks.updates import check_updates
from graphfreeze.errors import CheckFailedError, VerificationError
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan_files import load_plan
from tests.passes.training_models import OPTIMIZERS, save

X = tf.TensorSpec([None, 3], tf.float32, name="x")
FREEZE = [Selection("freeze", "w[0]")]


class Model(tf.Module):
    """Two steps that train one weight with momentum, and a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], name="w")
        self.m = tf.Variable(tf.ones([3, 2]), name="m", trainable=False)

    @tf.function(input_signature=[X])
    def serve(self, x: Any) -> Any:
        return {"y": tf.matmul(x, self.w)}

    def _step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.matmul(x, self.w) ** 2)
        self.m.assign(self.m * 0.5 + tape.gradient(loss, self.w))
        self.w.assign_sub(0.1 * self.m)
        return {"loss": loss}

    @tf.function(input_signature=[X])
    def train(self, x: Any) -> Any:
        return self._step(x)

    @tf.function(input_signature=[X])
    def tune(self, x: Any) -> Any:
        return self._step(x)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "model"
    module = Model()
    tf.saved_model.save(module, str(path), signatures={"train": module.train, "tune": module.tune})
    return path


def check(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(check for check in report["checks"] if name in check["name"])


def test_a_model_with_steps_of_its_own(model: Path, tmp_path: Path) -> None:
    report = rewrite(model, tmp_path / "out", FREEZE, onnx=False)
    (variable,) = report["variables"]
    assert {(u["updates"], u["operation"]) for u in variable["updates"]} == {
        ("w", "AssignSubVariableOp"),
        ("m", "AssignVariableOp"),
    }
    endpoints = {label for update in variable["updates"] for label in update["endpoints"]}
    assert endpoints == {"function train", "function tune", "signature train", "signature tune"}
    kept = check(report, "own training steps")
    assert kept["passed"]
    found = {(record["endpoint"], record["variable"]) for record in kept["evidence"]["compared"]}
    assert found == {(endpoint, name) for endpoint in ("train", "tune") for name in ("w", "m")}
    compared = check(report, "computes what the original computes")["evidence"]
    assert {record["endpoint"] for record in compared["compared"]} == {"serve"}
    assert {record["endpoint"] for record in compared["skipped"]} == {"train", "tune"}
    assert verify(model, tmp_path / "out")["passed"]
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    for _ in range(3):
        loaded.signatures["train"](x=tf.ones([2, 3]))
    assert loaded.w.numpy()[0].tolist() == [1.0, 2.0]
    assert (loaded.w.numpy()[1:] != [[3.0, 4.0], [5.0, 6.0]]).all()


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("Keras 3 accumulation", 2),
        ("Keras 3 RMSprop with momentum", 3),
        ("tf_keras Adagrad", 1),
        ("Keras 3 clipping", 0),
    ],
)
def test_slots_behind_gathers_and_in_branches(tmp_path: Path, name: str, slots: int) -> None:
    path = save(OPTIMIZERS[name](), tmp_path / "model")
    report = rewrite(path, tmp_path / "out", [Selection("freeze", "e[1, 0:2]")], onnx=False)
    assert all(check["passed"] for check in report["checks"])
    (variable,) = report["variables"]
    held = {update["updates"] for update in variable["updates"]}
    assert len(held) == 1 + slots
    compared = check(report, "own training steps")["evidence"]["compared"]
    assert {record["endpoint"] for record in compared} == {"train"}
    assert "e" in {record["variable"] for record in compared} <= held
    assert verify(path, tmp_path / "out")["passed"]


def test_a_step_that_moves_what_is_frozen_is_caught(model: Path, tmp_path: Path) -> None:
    """The check is given the original, which freezes nothing."""
    rewrite(model, tmp_path / "out", FREEZE, onnx=False, checks="none")
    plan = load_plan(tmp_path / "out" / "plan")
    variables = SavedModel.load(model).variables
    with pytest.raises(CheckFailedError, match="'w' in the endpoint 'train', where 2 elements moved"):
        check_updates(model, variables, plan, {"train": {"w": "w"}})


def test_one_endpoint_trains_frozen_and_another_does_not(model: Path, tmp_path: Path) -> None:
    report = rewrite(model, tmp_path / "out", FREEZE, onnx=False, only_in=["tune"])
    assert report["only_in"] == ["tune"]
    (variable,) = report["variables"]
    labels = {label for use in (*variable["reads"], *variable["updates"]) for label in use["endpoints"]}
    assert labels == {"function tune", "signature tune"}
    compared = check(report, "computes what the original computes")["evidence"]
    assert {(r["endpoint"], r["status"]) for r in compared["compared"]} == {("serve", "equal"), ("train", "equal")}
    assert verify(model, tmp_path / "out")["checks"][0]["evidence"]["only_in"] == ["tune"]
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    loaded.tune(tf.ones([2, 3]))
    assert loaded.w.numpy()[0].tolist() == [1.0, 2.0]
    loaded.train(tf.ones([2, 3]))
    assert (loaded.w.numpy()[0] != [1.0, 2.0]).all()
    # The plan is part of what is proven: the same output is not what a freeze everywhere would be.
    plan = load_plan(tmp_path / "out" / "plan")
    with pytest.raises(VerificationError):
        prove(model, tmp_path / "out" / "saved_model", replace(plan, only_in=()))


def test_values_hold_in_the_chosen_endpoint_only(model: Path, tmp_path: Path) -> None:
    report = rewrite(model, tmp_path / "out", [Selection("freeze", "w[0] := 9")], onnx=False, only_in=["serve"])
    assert all(check["passed"] for check in report["checks"])
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    assert loaded.serve(np.array([[1, 0, 0]], np.float32))["y"].numpy().tolist() == [[9.0, 9.0]]
    assert loaded.train(np.array([[1, 0, 0]], np.float32))["loss"].numpy() == 2.5


def test_the_training_step_has_to_be_frozen(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="made of the endpoint 'serve', and the freeze is limited to tune"):
        rewrite(model, tmp_path / "out", FREEZE, loss="mse", only_in=["tune"])
    assert not (tmp_path / "out").exists()
    report = rewrite(model, tmp_path / "out", FREEZE, loss="mse", only_in=["serve"])
    assert all(check["passed"] for check in report["checks"])


def test_an_unknown_endpoint(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no endpoint 'serv' \(the nearest: serve.*It has: serve, train, tune"):
        rewrite(model, tmp_path / "out", FREEZE, onnx=False, only_in=["serv"], dry_run=True)
