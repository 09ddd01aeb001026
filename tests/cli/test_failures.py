"""Each way to fail, from end to end: the exit code, the message, and that nothing is left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.cli.exits import run
from tests.cli.conftest import CommandLine


def save_model_with_unsupported_operation(path: Path) -> None:
    """A model with an operation that no lowering rule is for."""
    module = tf.Module()
    module.w = tf.Variable(tf.eye(2), name="w")
    specification = tf.TensorSpec((None, 2), tf.float32, name="x")
    module.serve = tf.function(lambda x: x * tf.linalg.svd(module.w, compute_uv=False), input_signature=[specification])
    tf.saved_model.save(module, path, signatures=module.serve)


def test_exit_1_for_another_original(command: CommandLine, rewritten: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["rewrite", model, tmp_path / "other", "--freeze", "**/bias", "--no-onnx", "--checks", "none"]
    assert command(*arguments).code == 0
    other = tmp_path / "other" / "saved_model"
    outcome = command("verify", other, rewritten, "--json")
    assert outcome.code == 1
    assert outcome.error["type"] == "VerificationError"
    assert command("verify", other, rewritten).code == 1


WRONG_REQUESTS = {
    "no such variable": (["--freeze", "dense/kernal"], "dense/kernel"),
    "index out of range": (["--freeze", "dense/kernel[:, 3]"], "3"),
    "no element": (["--freeze", "dense/kernel where w > 1e9"], "no element"),
    "no such loss": (["--freeze", "**", "--train", "**/bias", "--loss", "mean_error"], "mean_squared_error"),
    "no such optimizer": (["--freeze", "**/bias", "--loss", "mse", "--optimizer", "adamx"], "adamw"),
    "no such endpoint": (["--freeze", "**/bias", "--loss", "mse", "--endpoint", "serving"], "serving_default"),
    "opset too old": (["--freeze", "**/bias", "--opset", "17"], "expected 18 to 26"),
    "opset too new": (["--freeze", "**/bias", "--opset", "27"], "expected 18 to 26"),
    "no such file": (["--freeze", "**/bias", "--spec", "missing.toml"], "missing.toml"),
}


@pytest.mark.parametrize(("options", "hint"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS.keys())
def test_exit_2_for_a_wrong_request(
    command: CommandLine, model: Path, tmp_path: Path, options: list[str], hint: str
) -> None:
    needs_loss = [] if "--loss" in options else ["--loss", "mse"]
    outcome = command("rewrite", model, tmp_path / "out", *options, *needs_loss, "--json")
    assert outcome.code == 2
    assert hint in outcome.error["message"]
    assert list(tmp_path.iterdir()) == []


def test_exit_2_for_data_that_do_not_fit(command: CommandLine, rewritten: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((4, 4), np.float32))
    before = sorted(rewritten.rglob("*"))
    arguments = ["train", rewritten, "--data", tmp_path / "data.npz", "--epochs", "1", "--batch-size", "2", "--json"]
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.error["type"] == "DataError"
    assert "y" in outcome.error["message"]
    assert sorted(rewritten.rglob("*")) == before


def test_exit_3_for_an_operation_that_is_not_supported(command: CommandLine, tmp_path: Path) -> None:
    save_model_with_unsupported_operation(tmp_path / "model")
    arguments = ["rewrite", tmp_path / "model", tmp_path / "out", "--freeze", "w[0]", "--loss", "mse", "--json"]
    outcome = command(*arguments)
    assert outcome.code == 3
    assert "Svd" in outcome.error["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def write_nothing(path: Path) -> None:
    """There is nothing."""


def write_keras_file(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04")


UNREADABLE: dict[str, Callable[[Path], Any]] = {
    "missing": write_nothing,
    "empty directory": Path.mkdir,
    "a file": write_keras_file,
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_exit_4_for_what_is_no_model(command: CommandLine, tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "model")
    for arguments in (["inspect"], ["rewrite", "--freeze", "**", "--loss", "mse"]):
        name, *options = arguments
        outcome = command(name, tmp_path / "model", *([tmp_path / "out"] if options else []), *options, "--json")
        assert outcome.code == 4
        assert outcome.error["type"] == "ModelReadError"
        assert not (tmp_path / "out").exists()


def test_exit_4_for_what_is_no_artifact(command: CommandLine, tmp_path: Path) -> None:
    outcome = command("validate", tmp_path / "out", "--json")
    assert outcome.code == 4
    assert outcome.error["type"] == "ArtifactReadError"


def test_exit_4_for_an_output_inside_the_model(command: CommandLine, model: Path, rewrite_options: list[str]) -> None:
    before = sorted(model.rglob("*"))
    outcome = command("rewrite", model, model / "out", *rewrite_options, "--json")
    assert outcome.code == 4
    assert outcome.error["type"] == "OutputError"
    assert sorted(model.rglob("*")) == before


def limit_file_size() -> None:
    """Let every write past 1000 bytes fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_exit_4_for_a_full_disk(model: Path, rewrite_options: list[str], tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "graphfreeze", "rewrite", str(model), str(tmp_path / "out"), *rewrite_options]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit_file_size)
    assert result.returncode == 4, result.stderr
    assert "File too large" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_rewrite_leaves_nothing(
    model: Path, rewrite_options: list[str], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = [sys.executable, "-m", "graphfreeze", "rewrite", str(model), str(tmp_path / "out"), *rewrite_options]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not any(tmp_path.iterdir()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert not (tmp_path / "out").exists()
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_stdout_without_a_reader_is_no_defect(model: Path) -> None:
    command = f"{sys.executable} -m graphfreeze inspect {model} | true; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert result.returncode in (0, 1)
    assert "Traceback" not in result.stderr


def test_an_encoding_without_the_lines_of_tables_is_no_defect(model: Path) -> None:
    command = [sys.executable, "-m", "graphfreeze", "inspect", str(model)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert "dense/kernel" in result.stdout


def test_nothing_is_selected(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rewrite", "MODEL", "OUT", "--loss", "mse"]) == 2
    assert "--freeze SELECTOR" in capsys.readouterr().err
