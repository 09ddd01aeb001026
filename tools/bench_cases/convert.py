"""Converts the training step of a SavedModel without frozen parts, and measures that.

`python -m tools.bench_cases.convert SAVED_MODEL TRAINING BATCH.npz` prints as JSON the fields of a `Conversion`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from graphfreeze.artifact import write_artifact
from graphfreeze.assembly import assemble
from graphfreeze.checks.reference import compute_reference
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.trace import trace_step
from tools.bench_cases.results import Conversion

__all__ = ["ENDPOINT", "LOSS", "OPTIMIZER", "convert"]

LOSS = "sparse_categorical_crossentropy:from_logits=true"
OPTIMIZER = "adam"
ENDPOINT = "train"
_OPSET = 18


def convert(saved_model: Path, training: Path, batch_file: Path) -> Conversion:
    """Write the artifact of a training step. `rewrite` refuses to freeze nothing.

    Args:
        saved_model: The SavedModel.
        training: The directory to write.
        batch_file: The batch of the reference.
    """
    with np.load(batch_file) as file:
        batch = dict(file)
    before, begin = _megabytes(), time.process_time()
    model = SavedModel.load(saved_model)
    step = trace_step(
        saved_model,
        model.variables,
        FreezePlan(),
        losses=parse_losses(LOSS),
        optimizers=parse_optimizers(OPTIMIZER),
        endpoint=ENDPOINT,
        forward_endpoint=ENDPOINT,
        read=model.read,
    )
    assembly = assemble(step, opset=_OPSET, seed=0)
    seconds, most = time.process_time() - begin, _megabytes()
    reference = stored_reference(assembly, compute_reference(step, batch, 0), batch)
    write_artifact(training, assembly.manifest, assembly.graphs, assembly.state, reference)
    state = (training / "state.safetensors").stat().st_size / 2**20
    operations = sum(1 for _ in step.graphs["train_step"].graph.walk())
    return Conversion(seconds, most - before, state, operations)


def _megabytes() -> float:
    """The most memory that this process has held so far. What getrusage says begins with that of its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(asdict(convert(*map(Path, sys.argv[1:])))))
