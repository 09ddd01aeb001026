from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.checks.float64 import check_step_in_float64
from graphfreeze.checks.single_step import check_single_steps
from graphfreeze.errors import ValidationError

from .conftest import Exported
from .functional import replace_rule, scaled

Model = Callable[[str], Exported]


@pytest.fixture(scope="module")
def artifact(exported: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the network with convolutions, whose kernels are stored transposed, trained by Adam."""
    model, out = exported("cnn"), tmp_path_factory.mktemp("artifact") / "out"
    selection = graphfreeze.Selection("freeze", model.sample.selector)
    graphfreeze.rewrite(
        model.path,
        out,
        [selection],
        loss=model.sample.loss,
        optimizer="adam:learning_rate=0.01",
        endpoint=model.sample.endpoint,
        checks="none",
    )
    return out


def test_the_same_optimizer_agrees(exported: Model, artifact: Path) -> None:
    model = exported("cnn")
    step = model.trace("adam:learning_rate=0.01")
    before = [p.resource.numpy() for p in step.parameters]
    check = check_single_steps(step, model.batch(), artifact)
    assert check["passed"]
    names = {record["name"] for record in check["evidence"]}
    assert {p.name for p in step.trained} < names
    assert len(names) == 3 * len(step.trained) + 1
    for p, value in zip(step.parameters, before, strict=True):
        np.testing.assert_array_equal(p.resource.numpy(), value)


@pytest.mark.parametrize(
    ("optimizer", "wrong"),
    [
        ("adam:learning_rate=0.01,beta_1=0.89", "momentum"),
        ("adam:learning_rate=0.01,beta_2=0.9985", "velocity"),
        ("adam:learning_rate=0.01,epsilon=0.01", "/"),
        ("adam:learning_rate=0.01,weight_decay=0.1", "/"),
    ],
)
def test_another_hyperparameter_is_caught(exported: Model, artifact: Path, optimizer: str, wrong: str) -> None:
    model = exported("cnn")
    with pytest.raises(ValidationError, match="one optimizer step from TensorFlow's state differs for") as caught:
        check_single_steps(model.trace(optimizer), model.batch(), artifact)
    (check,) = caught.value.details["checks"]
    assert not check["passed"]
    failed = [record["name"] for record in check["evidence"] if record["excess"] > 1]
    assert any(wrong in name for name in failed)


OPTIMIZERS = (
    "sgd:momentum=0.9,nesterov=true",
    "adamw:weight_decay=0.01",
    "rmsprop:momentum=0.9,centered=true",
    "nadam",
)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizers_in_float64(exported: Model, optimizer: str) -> None:
    model = exported("cnn")
    step, batch = model.trace(optimizer), model.batch()
    filters = [p.name for p in step.parameters if len(p.variable.shape) == 4]
    checks = check_step_in_float64(step, batch, filters=filters)
    assert [check["evidence"]["status"] for check in checks] == ["compared", "compared"]
    compared = [record["tensor"] for record in checks[1]["evidence"]["tensors"]]
    assert {f"new/{p.name}" for p in step.trained} <= set(compared)
    assert [v.variable.numpy().tobytes() for v in step.optimizer_variables] == [
        v.variable.numpy().tobytes() for v in model.trace(optimizer).optimizer_variables
    ]


def test_a_wrong_term_of_the_optimizer_is_caught_in_float64(exported: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # Only Adam takes a square root here. One part in ten million is below the rounding of float32.
    model = exported("cnn")
    step, batch = model.trace("adam"), model.batch()
    replace_rule(monkeypatch, "Sqrt", scaled(1 + 1e-7))
    with pytest.raises(ValidationError, match=r"'new/net/.*' of the graph apply_gradients"):
        check_step_in_float64(step, batch)


def test_the_seed_of_dropout_moves_on_in_float64(exported: Model) -> None:
    model = exported("mlp")
    step, batch = model.trace(), model.batch()
    checks = check_step_in_float64(step, batch)
    rules = {record["tensor"]: record["rule"] for record in checks[0]["evidence"]["tensors"]}
    seed = next(p.name for p in step.parameters if p.resource.dtype == tf.int64)
    assert rules[f"new/{seed}"] == "exact"
