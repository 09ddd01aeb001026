"""A small exported model, and the command line run in this process."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from graphfreeze.cli import run


@dataclass(frozen=True)
class Outcome:
    """What a command line returned and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON object on stdout."""
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The error object: the last line on stderr, with nothing on stdout."""
        assert self.out == ""
        return json.loads(self.err.splitlines()[-1])["error"]


CommandLine = Callable[..., Outcome]


def run_command(*arguments: str | Path) -> Outcome:
    """Run one command line."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> CommandLine:
    return run_command


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SavedModel of one Dense layer: 4 numbers to 3."""
    path = tmp_path_factory.mktemp("model") / "model"
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,), name="x")
    keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs), name="tiny").export(path, verbose=False)
    return path


@pytest.fixture(scope="session")
def rewrite_options() -> list[str]:
    """Options of a rewrite of that model."""
    return ["--freeze", "dense/kernel[:, 0]", "--loss", "mse", "--optimizer", "adamw:weight_decay=0.1"]


@pytest.fixture(scope="session")
def rewritten(model: Path, rewrite_options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OUT of that rewrite, trained already."""
    directory = tmp_path_factory.mktemp("rewritten")
    outcome = run_command("rewrite", model, directory / "out", *rewrite_options)
    assert outcome.code == 0, outcome.err
    data = directory / "data.npz"
    random = np.random.default_rng(0)
    np.savez(data, x=random.normal(size=(10, 4)), y=random.normal(size=(10, 3)))
    outcome = run_command("train", directory / "out", "--data", data, "--epochs", "3", "--batch-size", "4")
    assert outcome.code == 0, outcome.err
    return directory / "out"
