"""graphfreeze: the artifact's Trainer on onnxruntime."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

import graphfreeze
from graphfreeze.runtime.device import Device
from tools.bench_cases.sides.side import Side, load_batch

__all__ = ["make"]


def make(model: str, directory: Path, threads: int, variant: str) -> Side:
    """The step of the rewritten model, with frozen parts or without."""
    del model
    trainer = graphfreeze.Trainer(directory / variant, device=Device("cpu", "measured", threads))
    batch = load_batch(directory)
    trained = [entry for entry in trainer.artifact.manifest.state if entry.role == "parameter"]
    return Side(
        lambda: trainer.step(batch),
        {"graphfreeze": graphfreeze.__version__, "onnxruntime": onnxruntime.__version__},
        sum(int(trainer.state_dict()[entry.name].size) for entry in trained),
    )
