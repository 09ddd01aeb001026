"""Derives gradients with onnxruntime-training: the side that runs in its environment.

`python -m tools.oracle_cases.peer DIRECTORY` reads what `prepare.py` wrote, and writes there `oracle.npz` (`loss`, and
the gradient of each initializer by its name) or `refusal.txt`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module

_LOSSES = {"mse": artifacts.LossType.MSELoss, "cross_entropy": artifacts.LossType.CrossEntropyLoss}


def main() -> None:
    """Derive; what fails in Python is a refusal."""
    onnxruntime.set_default_logger_severity(4)
    # Transformers of graphs print what they like.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    directory = Path(sys.argv[1])
    try:
        np.savez(directory / "oracle.npz", **derive(directory))
    except Exception as error:  # it fails as it likes; how, is a finding
        (directory / "refusal.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")


def derive(directory: Path) -> dict[str, Any]:
    """The loss and the gradients for the batch."""
    model: Any = onnx.load(directory / "forward.onnx")
    known = json.loads((directory / "case.json").read_text(encoding="utf-8"))
    repair(model)
    floats = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    with tempfile.TemporaryDirectory() as files:
        artifacts.generate_artifacts(
            model,
            requires_grad=known["trainable"],
            frozen_params=[name for name in floats if name not in known["trainable"]],
            loss=_LOSSES[known["loss"]],
            artifact_directory=files,
        )
        state = CheckpointState.load_checkpoint(f"{files}/checkpoint")
        module = Module(f"{files}/training_model.onnx", state, None, device="cpu")
        with np.load(directory / "batch.npz") as batch:
            # What is no input of the model is the target of the loss.
            named = {n: batch[n if n in batch.files else "y"] for n in module.input_names()}
        module.train()
        loss = module(*map(np.array, named.values()))
        found = {"loss": np.asarray(loss, np.float32)}
        return found | {n: p.grad.copy() for n, p in state.parameters if p.requires_grad}


def repair(model: Any) -> None:
    """Write what it fails at in another way, which means the same."""
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and len(node.output) == 1:
            # Its gradient needs the optional outputs.
            node.output.extend([f"{node.output[0]}/mean", f"{node.output[0]}/deviation"])


if __name__ == "__main__":
    main()
