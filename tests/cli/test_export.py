"""From a Keras file to a trained artifact of several outputs, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.cli.conftest import CommandLine
from tests.training.models import EXAMPLES, data_for, two_outputs

REWRITE = ["--freeze", "trunk/bias[0]", "--endpoint", "train"]
LOSSES = ["--loss", "value=huber:delta=0.5:weight=0.3", "--loss", "label=sparse_categorical_crossentropy"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    two_outputs().save(path)
    return path


@pytest.fixture(scope="module")
def exported(file: Path, command: CommandLine) -> Path:
    assert command("export", file, file.parent / "exported").code == 0
    return file.parent / "exported"


@pytest.fixture(scope="module")
def data(exported: Path) -> Path:
    path = exported.parent / "data.npz"
    arrays: dict[str, Any] = data_for(two_outputs())
    np.savez(path, **arrays, sample_weight=np.linspace(0, 2, EXAMPLES, dtype=np.float32))
    return path


@pytest.fixture(scope="module")
def rewritten(exported: Path, command: CommandLine) -> Path:
    out = exported.parent / "out"
    outcome = command("rewrite", exported, out, *REWRITE, *LOSSES, "--sample-weight")
    assert outcome.code == 0, outcome.err
    return out


def test_export_reports_its_endpoints(file: Path, command: CommandLine, tmp_path: Path) -> None:
    report = command("export", file, tmp_path / "model", "--json").json
    assert report["schema_version"] == 1
    assert [endpoint["outputs"] for endpoint in report["endpoints"]] == [
        ["idle", "label", "value"],
        ["graphfreeze_losses", "idle", "label", "value"],
    ]
    assert command("export", file, tmp_path / "model").code == 4
    table = command("export", file, tmp_path / "model", "--overwrite").out
    assert "x float32 ? x 5" in table


def test_export_has_an_exit_code_for_each_failure(command: CommandLine, tmp_path: Path) -> None:
    x = keras.Input((2,))
    keras.Model(x, keras.layers.Lambda(lambda v: v)(x)).save(tmp_path / "lambda.keras")
    (tmp_path / "junk.keras").write_bytes(b"junk")
    for name, code, kind in (
        ("model.onnx", 2, "UsageError"),
        ("lambda.keras", 3, "UnsupportedError"),
        ("junk.keras", 4, "ModelReadError"),
        ("missing.keras", 4, "ModelReadError"),
    ):
        outcome = command("export", tmp_path / name, tmp_path / "out", "--json")
        assert (outcome.code, outcome.error["type"]) == (code, kind)
    assert not (tmp_path / "out").exists()


def test_several_losses_from_end_to_end(command: CommandLine, rewritten: Path, data: Path) -> None:
    report = command("inspect", rewritten, "--json").json
    assert report["losses"] == [
        {"output": "label", "name": "sparse_categorical_crossentropy", "arguments": {}, "weight": 1.0},
        {"output": "value", "name": "huber", "arguments": {"delta": 0.5}, "weight": 0.3},
    ]
    assert [(entry["name"], entry["role"]) for entry in report["batch"]] == [
        ("x", "input"),
        ("y.label", "target"),
        ("y.value", "target"),
        ("sample_weight", "sample_weight"),
    ]
    assert "0.3 * huber:delta=0.5 of value" in command("inspect", rewritten).out

    for arguments in ([], ["--data", data]):
        validated = command("validate", rewritten, *arguments, "--json").json
        found = next(check for check in validated["checks"] if check["name"] == "loss equals TensorFlow's")
        assert found["passed"]
        assert "loss/label" in found["message"]
        assert "loss/value" in found["message"]

    arguments = ["train", rewritten, "--data", data, "--epochs", "2", "--batch-size", "8", "--json"]
    trained = command(*arguments).json
    assert trained["last_loss"] < trained["first_loss"]
    assert sorted(trained["last_output_losses"]) == ["label", "value"]


def test_the_report_names_mode_losses_and_outputs_without_one(
    command: CommandLine, exported: Path, tmp_path: Path
) -> None:
    arguments = ["rewrite", exported, tmp_path / "out", *REWRITE, "--loss", "value=mse", "--checks", "none"]
    training = command(*arguments, "--json").json["training"]
    assert training["outputs_without_loss"] == ["idle", "label"]
    assert training["forward_endpoint"] == "serve"
    assert training["mode"]["name"] == "inference"  # the model has no layer that knows modes
    table = command(*arguments, "--overwrite").out
    assert "idle, label" in table
    assert "inference mode" in table


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (["--loss", "mse"], "the outputs are idle, label, value"),
        (["--loss", "valve=mse"], "The outputs are idle, label, value"),
        (["--loss", "value=mse", "--loss", "value=mae"], "two losses for the output 'value'"),
        (["--loss", "label=mse:weight=heavy"], "the weight is 'heavy'"),
    ],
)
def test_wrong_outputs_are_exit_2(
    losses: list[str], message: str, command: CommandLine, exported: Path, tmp_path: Path
) -> None:
    outcome = command("rewrite", exported, tmp_path / "out", *REWRITE, *losses)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_missing_weights_in_the_data_are_exit_2(command: CommandLine, rewritten: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = data_for(two_outputs())
    np.savez(tmp_path / "data.npz", **arrays)
    outcome = command("train", rewritten, "--data", tmp_path / "data.npz", "--epochs", "1", "--batch-size", "8")
    assert outcome.code == 2
    assert "lacks sample_weight" in outcome.err


def test_a_specification_holds_several_losses(command: CommandLine, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text(
        'loss = ["value=mse", "label=sparse_categorical_crossentropy:weight=2"]\nsample_weight = true\n'
        'endpoint = "train"\nchecks = "none"\n[[selectors]]\nfreeze = "trunk/bias"\n'
    )
    training = command("rewrite", exported, tmp_path / "out", "--spec", tmp_path / "spec.toml", "--json").json[
        "training"
    ]
    assert [loss["weight"] for loss in training["losses"]] == [2.0, 1.0]
    assert training["sample_weight"] is True
