"""Where TensorFlow is not installed: inspect, validate and train what `make_artifact.py` wrote.

Needs nothing but graphfreeze's base install: no pytest. Usage: use_artifact.py DIRECTORY
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

import graphfreeze


def run(*arguments: str | Path, code: int = 0) -> Any:
    """Run the console script with --json: what it prints on stdout, or on stderr where it is to fail."""
    command = [str(Path(sys.executable).with_name("graphfreeze")), *map(str, arguments), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert result.returncode == code, f"{arguments}: exit {result.returncode}\n{result.stdout}{result.stderr}"
    return json.loads(result.stdout if code == 0 else result.stderr.splitlines()[-1])


def main(directory: Path) -> None:
    """Check that everything which should work without TensorFlow does."""
    assert importlib.util.find_spec("tensorflow") is None, "this environment is meant to have no TensorFlow"
    assert importlib.util.find_spec("keras") is None, "this environment is meant to have no Keras"
    out, data = directory / "out", directory / "data.npz"

    inspected = run("inspect", out)
    (kernel,) = (entry for entry in inspected["state"] if entry["name"].endswith("hidden/kernel"))
    assert kernel["frozen_elements"] == 18
    assert [entry["elements"] for entry in inspected["frozen"]] == [8]

    assert run("validate", out)["schema_version"] == 1

    trained = run("train", out, "--data", data, "--epochs", "5", "--batch-size", "20")
    assert trained["last_loss"] < trained["first_loss"]
    assert trained["frozen_elements_changed"] == 0
    check_bits(out, kernel["name"], trained["losses"][-1], data)

    error = run("rewrite", directory / "model", directory / "again", "--freeze", "**", "--loss", "mse", code=2)["error"]
    assert "pip install 'graphfreeze[tensorflow]'" in error["message"]
    assert not (directory / "again").exists()
    print("An artifact validates and trains where no TensorFlow is installed.")


def check_bits(out: Path, kernel: str, last_loss: float, data: Path) -> None:
    """Compare the kernel before and after training, and use the trained state from Python."""
    trainer = graphfreeze.Trainer(out, device="cpu", state=out / "training/trained.safetensors")
    before, after = (t.weights()[kernel] for t in (graphfreeze.Trainer(out, device="cpu"), trainer))
    assert before.shape == after.shape == (6, 8)
    same = before.view(np.uint32) == after.view(np.uint32)
    assert same[:, :3].all(), "a frozen element moved"
    assert not same[:, 3:].any(), "a trainable element stayed"
    # The three frozen columns are in no file of the state.
    assert load_file(out / "training/trained.safetensors")[kernel].shape == (6, 5)
    with np.load(data) as arrays:
        assert trainer.step(dict(arrays)) < 2 * last_loss
    assert "tensorflow" not in sys.modules


if __name__ == "__main__":
    main(Path(sys.argv[1]))
