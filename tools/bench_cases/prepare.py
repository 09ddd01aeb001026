"""Makes what the sides of one model need: its SavedModel, training steps with and without frozen parts, and a batch.

`python -m tools.bench_cases.prepare MODEL DIRECTORY` prints as JSON the processor seconds that conversion took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

import graphfreeze
from graphfreeze.artifact import write_artifact
from graphfreeze.assembly import assemble
from graphfreeze.checks.reference import compute_reference
from graphfreeze.pipeline.options import Batch
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.optimizers import parse_optimizer
from graphfreeze.training.trace import trace_step
from tools.bench_cases.catalogue import MODELS, draw_batch
from tools.bench_cases.forward_model import write_forward_model
from tools.bench_cases.keras_models import build

__all__ = ["prepare"]

_LOSS = "sparse_categorical_crossentropy:from_logits=true"
_OPTIMIZER = "adam"
_ENDPOINT = "train"
_OPSET = 18


def prepare(name: str, directory: Path) -> float:
    """Write `saved_model`, `unfrozen`, `frozen`, `forward.onnx`, `trainable.json` and `batch.npz`.

    Returns:
        The processor seconds that tracing and lowering the step without frozen parts took.
    """
    model = MODELS[name]
    batch = draw_batch(model)
    np.savez(directory / "batch.npz", x=batch["x"], y=batch["y"])
    graphfreeze.export(build(model), directory / "saved_model")
    seconds = _convert(directory / "saved_model", directory / "unfrozen" / "training", batch)
    write_forward_model(directory / "unfrozen", directory, model.batch_size)
    graphfreeze.rewrite(
        directory / "saved_model",
        directory / "frozen",
        [graphfreeze.Selection("freeze", model.freeze)],
        loss=_LOSS,
        optimizer=_OPTIMIZER,
        endpoint=_ENDPOINT,
        forward_endpoint=_ENDPOINT,
        data=directory / "batch.npz",
        checks="static",
    )
    return seconds


def _convert(saved_model: Path, training: Path, batch: Batch) -> float:
    # `rewrite` refuses to freeze nothing.
    begin = time.process_time()
    step = trace_step(
        saved_model,
        SavedModel.load(saved_model).variables,
        FreezePlan(),
        losses=parse_losses(_LOSS),
        optimizer=parse_optimizer(_OPTIMIZER),
        endpoint=_ENDPOINT,
        forward_endpoint=_ENDPOINT,
    )
    assembly = assemble(step, opset=_OPSET, seed=0)
    seconds = time.process_time() - begin
    reference = stored_reference(assembly, compute_reference(step, batch, 0), batch)
    write_artifact(training, assembly.manifest, assembly.graphs, assembly.state, reference)
    return seconds


if __name__ == "__main__":
    print(json.dumps(prepare(sys.argv[1], Path(sys.argv[2]))))
