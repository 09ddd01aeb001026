"""onnxruntime-training: artifacts generated from the forward graph, AdamW without decay."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.training import artifacts
from onnxruntime.training.api import CheckpointState, Module, Optimizer

from tools.bench_cases.sides.side import LEARNING_RATE, Side, load_batch

__all__ = ["make"]


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step: forward and backward, the optimizer, and new gradients."""
    del model, variant
    forward: Any = onnx.load(directory / "forward.onnx")
    trainable = json.loads((directory / "trainable.json").read_text(encoding="utf-8"))
    floats = [tensor.name for tensor in forward.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    # The folder has to be there, and one of another number of threads may be.
    files = directory / f"onnxruntime_training_{threads}"
    files.mkdir(exist_ok=True)
    artifacts.generate_artifacts(
        forward,
        requires_grad=trainable,
        frozen_params=[name for name in floats if name not in trainable],
        loss=artifacts.LossType.CrossEntropyLoss,
        optimizer=artifacts.OptimType.AdamW,
        artifact_directory=str(files),
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    state = CheckpointState.load_checkpoint(str(files / "checkpoint"))
    module = Module(str(files / "training_model.onnx"), state, None, device="cpu", session_options=options)
    optimizer = Optimizer(str(files / "optimizer_model.onnx"), module)
    optimizer.set_learning_rate(LEARNING_RATE)
    module.train()
    batch = load_batch(directory)
    x, y = (np.ascontiguousarray(batch[name]) for name in ("x", "y"))

    def step() -> float:
        loss = float(module(x, y))
        optimizer.step()
        module.lazy_reset_grad()
        return loss

    versions = {"onnxruntime-training": importlib.metadata.version("onnxruntime-training")}
    return Side(step, versions, sum(int(np.prod(t.dims)) for t in forward.graph.initializer if t.name in trainable))
