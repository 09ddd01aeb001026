"""Each command from end to end: its JSON object, its tables, and what it leaves on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from graphfreeze.cli import tables
from graphfreeze.cli.commands import graphfreeze
from tests.cli.conftest import CommandLine


def test_inspect_a_model(command: CommandLine, model: Path) -> None:
    report = command("inspect", model, "--json").json
    assert report["schema_version"] == 1
    assert [(v["name"], v["shape"], v["dtype"], v["trainable"]) for v in report["variables"]] == [
        ("dense/bias", [3], "float32", True),
        ("dense/kernel", [4, 3], "float32", True),
    ]
    assert {read["operation"] for v in report["variables"] for read in v["reads"]} == {"ReadVariableOp"}
    assert report["endpoints"][0]["inputs"] == [{"name": "x", "shape": [None, 4], "dtype": "float32"}]
    assert "serving_default" in [signature["name"] for signature in report["signatures"]]

    table = command("inspect", model).out
    assert "dense/kernel" in table
    assert "4 x 3" in table
    assert "x float32 ? x 4" in table


def test_inspect_an_artifact(command: CommandLine, rewritten: Path) -> None:
    report = command("inspect", rewritten, "--json").json
    assert (report["schema_version"], report["kind"], report["loss"]["name"]) == (1, "artifact", "mean_squared_error")
    assert report["frozen_elements"] == 4
    table = command("inspect", rewritten).out
    assert "4 of 12" in table
    assert "adamw:weight_decay=0.1" in table


def test_rewrite(command: CommandLine, model: Path, rewrite_options: list[str], tmp_path: Path) -> None:
    report = command("rewrite", model, tmp_path / "out", *rewrite_options, "--json").json
    assert report["schema_version"] == 1
    (variable,) = report["variables"]
    assert (variable["name"], variable["frozen_elements"], variable["form"]) == ("dense/kernel", 4, "blend")
    assert {check["passed"] for check in report["checks"]} == {True}
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "plan",
        "report.json",
        "saved_model",
        "training",
    ]


def test_rewrite_without_onnx(command: CommandLine, model: Path, tmp_path: Path) -> None:
    arguments = ["rewrite", model, tmp_path / "out", "--freeze", "**", "--train", "**/bias", "--no-onnx"]
    outcome = command(*arguments, "--checks", "static")
    assert outcome.code == 0
    assert "12 of 12" in outcome.out
    assert "bias" not in outcome.out
    assert not (tmp_path / "out" / "training").exists()
    # Of the result, as of its SavedModel alone, one sees what is frozen.
    for path in (tmp_path / "out", tmp_path / "out" / "saved_model"):
        frozen = command("inspect", path, "--json").json["frozen"]
        assert [(v["frozen_elements"], v["elements"]) for v in frozen] == [(12, 12)]
        assert "12 of 12" in command("inspect", path).out


def test_dry_run_shows_the_plan_and_writes_nothing(
    command: CommandLine, model: Path, rewrite_options: list[str], tmp_path: Path
) -> None:
    arguments = ["rewrite", model, tmp_path / "out", *rewrite_options, "--dry-run"]
    report = command(*arguments, "--json").json
    assert report["dry_run"] is True
    assert report["totals"] == {"variables": 1, "elements": 12, "frozen_elements": 4}
    table = command(*arguments).out
    assert "nothing was written" in table
    assert "reads" not in table
    assert list(tmp_path.iterdir()) == []


def test_overwrite(command: CommandLine, model: Path, tmp_path: Path) -> None:
    arguments = ["rewrite", model, tmp_path / "out", "--freeze", "**/bias", "--no-onnx", "--checks", "none"]
    assert command(*arguments).code == 0
    assert command(*arguments, "--json").error["type"] == "OutputError"
    assert command(*arguments, "--overwrite").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_specification_file_holds_options_too(command: CommandLine, model: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text('no_onnx = true\nchecks = "none"\n[[selectors]]\nfreeze = "**"\n')
    arguments = ["rewrite", model, tmp_path / "out", "--spec", tmp_path / "spec.toml", "--json"]
    assert command(*arguments, "--dry-run").json["totals"]["frozen_elements"] == 15
    # The command line comes after the file, so that it wins.
    assert command(*arguments, "--dry-run", "--train", "**/bias").json["totals"]["frozen_elements"] == 12
    report = command(*arguments).json
    assert "training" not in report
    assert report["checks"] == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--loss", "hubr", "huber"),
        ("--optimizer", "adm", "adam"),
        ("--endpoint", "serv", "serving_default"),
        ("--data", "absent.npz", "absent.npz"),
    ],
)
def test_dry_run_refuses_what_the_training_step_would(
    command: CommandLine, model: Path, rewrite_options: list[str], tmp_path: Path, option: str, value: str, message: str
) -> None:
    outcome = command("rewrite", model, tmp_path / "out", *rewrite_options, option, value, "--dry-run")
    assert outcome.code == 2
    assert message in outcome.err


def test_verify(command: CommandLine, model: Path, rewritten: Path) -> None:
    report = command("verify", model, rewritten, "--json").json
    assert (report["schema_version"], report["passed"]) == (1, True)
    assert "ok" in command("verify", model, rewritten).out


def test_validate(command: CommandLine, rewritten: Path) -> None:
    report = command("validate", rewritten, "--device", "cpu", "--json").json
    assert (report["schema_version"], report["passed"], report["device"]) == (1, True, "cpu")
    table = command("validate", rewritten, "--device", "cpu").out
    assert "dense/kernel" in table
    assert "8 of 8" in table
    assert "4 of 4" in table


def test_validate_against_a_new_reference(command: CommandLine, rewritten: Path) -> None:
    stored = command("validate", rewritten, "--json").json
    given = command("validate", rewritten, "--data", rewritten.parent / "data.npz", "--json").json
    assert given["passed"] is True
    assert given["loss_expected"] != stored["loss_expected"]


def test_train(command: CommandLine, rewritten: Path, tmp_path: Path) -> None:
    data, state = rewritten.parent / "data.npz", tmp_path / "state.safetensors"
    arguments = ["train", rewritten, "--data", data, "--epochs", "2", "--batch-size", "4", "--save", state]
    report = command(*arguments, "--json").json
    assert report["schema_version"] == 1
    assert report["steps"] == 2 * 3
    assert report["last_loss"] < report["first_loss"]
    assert report["frozen_elements_changed"] == 0
    first = state.read_bytes()
    assert str(state) in command(*arguments).out
    assert state.read_bytes() == first
    assert command(*arguments, "--seed", "1").code == 0
    assert state.read_bytes() != first


def test_fold(command: CommandLine, model: Path, rewritten: Path, tmp_path: Path) -> None:
    report = command("fold", rewritten, tmp_path / "deploy", "--json").json
    assert report["schema_version"] == 1
    assert command("fold", rewritten, tmp_path / "deploy").code == 4
    assert command("fold", rewritten, tmp_path / "deploy", "--overwrite").code == 0
    assert (tmp_path / "deploy/saved_model.pb").read_bytes() == (model / "saved_model.pb").read_bytes()
    before, after = (
        next(v.numpy() for v in tf.saved_model.load(path).variables if "kernel" in v.name)
        for path in (model, tmp_path / "deploy")
    )
    np.testing.assert_array_equal(before[:, 0], after[:, 0])
    assert (before[:, 1:] != after[:, 1:]).all()


@pytest.mark.parametrize(
    ("check", "mark"),
    [
        ({"passed": True}, "ok"),
        ({"passed": False, "evidence": {"compared": []}}, "FAILED"),
        ({"passed": True, "evidence": {"compared": [{"status": "equal"}]}}, "ok"),
        ({"passed": True, "evidence": {"compared": []}}, "-"),
        ({"passed": True, "evidence": {"status": "not available"}}, "-"),
    ],
)
def test_a_check_that_compared_nothing_is_not_called_ok(check: dict[str, Any], mark: str) -> None:
    (_, checks) = tables.verification({"variables": [], "checks": [{"name": "of the numbers", **check}]})
    text = io.StringIO()
    Console(file=text).print(checks)
    assert f"{mark} of the numbers" in " ".join(text.getvalue().split())


def test_quiet_prints_nothing_and_verbose_logs_on_stderr(command: CommandLine, model: Path) -> None:
    assert (command("inspect", model, "-q").out, command("inspect", model, "-q").err) == ("", "")
    assert command("inspect", model, "-v", "--json").json["schema_version"] == 1


@pytest.mark.parametrize("name", sorted(graphfreeze.commands))
def test_every_command_has_the_common_options(name: str) -> None:
    options = {option for parameter in graphfreeze.commands[name].params for option in parameter.opts}
    assert {"--json", "-v", "-q", "--version"} <= options


def test_several_optimizers_from_end_to_end(command: CommandLine, model: Path, tmp_path: Path) -> None:
    random, out = np.random.default_rng(0), tmp_path / "out"
    np.savez(tmp_path / "data.npz", x=random.normal(size=(10, 4)), y=random.normal(size=(10, 3)))
    arguments = ["rewrite", model, out, "--freeze", "dense/kernel[:, 0]", "--loss", "mse"]
    optimizers = ["--optimizer", "sgd:learning_rate=0.1", "--optimizer", "**/bias=adam:learning_rate=0.02"]
    outcome = command(*arguments, *optimizers)
    assert outcome.code == 0, outcome.err
    assert "sgd:learning_rate=0.1 of all others, adam:learning_rate=0.02 of **/bias" in outcome.out
    assert "adam:learning_rate=0.02 of **/bias" in command("inspect", out / "training").out
    assert command("validate", out, "--data", tmp_path / "data.npz", "--json").json["passed"]
    trained = command("train", out, "--data", tmp_path / "data.npz", "--epochs", 3, "--batch-size", 5, "--json").json
    assert trained["last_loss"] < trained["first_loss"]
    assert command("fold", out, tmp_path / "deploy").code == 0
    # The same by a specification file.
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'selectors = [{freeze = "dense/kernel[:, 0]"}]\nloss = "mse"\n'
        'optimizer = ["sgd:learning_rate=0.1", "**/bias=adam:learning_rate=0.02"]\n'
    )
    assert command("rewrite", model, tmp_path / "again", "--spec", spec, "--checks", "none").code == 0
    manifests = [(path / "training" / "manifest.json").read_bytes() for path in (out, tmp_path / "again")]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (["sgd", "adam"], "expected one optimizer without a pattern at most, found sgd, adam"),
        (["sgd", "dense/biass=adam"], "nothing that trains matches 'dense/biass'; the nearest: dense/bias"),
        (["dense/bias=adam"], "found none for dense/kernel: give one without a pattern"),
    ],
)
def test_optimizers_that_do_not_fit(
    optimizers: list[str], message: str, command: CommandLine, model: Path, tmp_path: Path
) -> None:
    arguments = ["rewrite", model, tmp_path / "out", "--freeze", "dense/kernel[:, 0]", "--loss", "mse", "--json"]
    outcome = command(*arguments, *(item for text in optimizers for item in ("--optimizer", text)))
    assert outcome.code == 2
    assert message in outcome.error["message"]
    assert not (tmp_path / "out").exists()
