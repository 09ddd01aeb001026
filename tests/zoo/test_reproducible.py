"""The same model and the same options give the same bytes: in another process, from a specification file, linked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from graphfreeze import Selection, rewrite
from tests.zoo.models import ADAMW, LOSS, ZOO

pytestmark = pytest.mark.zoo

LSTM_SPEC = f"""
loss = "{LOSS}"
optimizer = "{ADAMW}"
link = true

[[selectors]]
freeze = "**/lstm_cell/kernel"
"""
CNN_SPEC = f"""
loss = "{LOSS}"
optimizer = "{ADAMW}"
checks = "static"
link = true

[[selectors]]
freeze = "**/kernel where w < 0"

[[selectors]]
train = "**/kernel[0]"
"""


def start(hash_seed: int, *arguments: str | Path) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    command = [sys.executable, "-m", "graphfreeze", "rewrite", "--json", *map(str, arguments)]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def export_lstm(path: Path) -> None:
    ZOO["lstm"].export(path)


def export_cnn(path: Path) -> None:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    stack = [
        keras.Input((8, 8, 2), name="image"),
        layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(3),
    ]
    keras.Sequential(stack, name="cnn").export(path, verbose=False)


@pytest.mark.parametrize(
    ("export", "options", "spec"),
    [
        (export_lstm, ["--freeze", "**/lstm_cell/kernel"], LSTM_SPEC),
        (export_cnn, ["--freeze", "**/kernel where w < 0", "--train", "**/kernel[0]", "--checks", "static"], CNN_SPEC),
    ],
    ids=["lstm", "cnn"],
)
def test_same_bytes(export: object, options: list[str], spec: str, tmp_path: Path) -> None:
    assert callable(export)
    export(tmp_path / "model")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "model").rglob("*")) if path.is_file()}
    (tmp_path / "spec.toml").write_text(spec, encoding="utf-8")
    copied, linked = tmp_path / "copied", tmp_path / "linked"
    processes = [
        start(1, tmp_path / "model", copied, *options, "--loss", LOSS, "--optimizer", ADAMW),
        start(2, tmp_path / "model", linked, "--spec", tmp_path / "spec.toml"),
    ]
    for process in processes:
        out, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert json.loads(out)["totals"]["frozen_elements"] > 0

    files = sorted(path.relative_to(copied) for path in copied.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(linked) for path in linked.rglob("*") if path.is_file())
    assert {"training/train_step.onnx", "report.json", "saved_model/saved_model.pb"} <= set(map(str, files))
    assert [str(file) for file in files if (copied / file).read_bytes() != (linked / file).read_bytes()] == []

    shard = Path("variables") / "variables.data-00000-of-00001"
    assert (linked / "saved_model" / shard).samefile(tmp_path / "model" / shard)
    assert not (copied / "saved_model" / shard).samefile(tmp_path / "model" / shard)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("optimizer", ["sgd:momentum=0.9", "adam"])
def test_two_rewrites_in_one_process_give_the_same_bytes(tmp_path: Path, optimizer: str) -> None:
    """Keras counts the optimizers of a process in their names, which must not show."""
    export_cnn(tmp_path / "model")
    selections = [Selection("freeze", "**/kernel[0]")]
    for name in ("first", "second"):
        rewrite(tmp_path / "model", tmp_path / name, selections, loss=LOSS, optimizer=optimizer, checks="static")
    files = sorted(p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "second") for p in (tmp_path / "second").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file
