"""Converts a case, and writes what onnxruntime-training needs to derive the gradients by itself."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np

from graphfreeze.artifact import write_artifact
from graphfreeze.assembly import assemble
from graphfreeze.checks.reference import compute_reference
from graphfreeze.errors import UnsupportedError
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.endpoint import ADDED_LOSSES, TRAINING_ENDPOINT
from graphfreeze.training.keras_endpoints import write_endpoints
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.optimizers import parse_optimizer
from graphfreeze.training.trace import trace_step
from tools.bench_cases.forward_model import write_forward_model
from tools.coverage_cases.case import Case
from tools.coverage_cases.measure import draw_batch

__all__ = ["prepare"]

_SEED = 0


def prepare(case: Case, directory: Path) -> None:
    """Write the artifact, `forward.onnx` of its training endpoint with weights inside, `batch.npz` and `case.json`.

    Raises:
        GraphfreezeError: The case cannot be converted, or its loss is more than a comparison with targets.
    """
    keras.utils.set_random_seed(_SEED)
    write_endpoints(case.make(), directory / "saved_model")
    step = trace_step(
        directory / "saved_model",
        SavedModel.load(directory / "saved_model").variables,
        FreezePlan(),
        losses=parse_losses(case.loss),
        optimizer=parse_optimizer("sgd"),
        endpoint=TRAINING_ENDPOINT,
        forward_endpoint=TRAINING_ENDPOINT,
        seed=_SEED,
    )
    if any(entry.name == ADDED_LOSSES for entry in step.endpoint.outputs):
        raise UnsupportedError("the model adds losses of its own, which its forward graph does not")
    assembly = assemble(step, opset=18, seed=_SEED)
    batch = draw_batch(case, step)
    reference = stored_reference(assembly, compute_reference(step, batch, _SEED), batch)
    write_artifact(directory / "training", assembly.manifest, assembly.graphs, assembly.state, reference)
    write_forward_model(directory, directory, case.batch_size)
    np.savez(directory / "batch.npz", **{name: np.asarray(array) for name, array in batch.items()})  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    trained = {parameter.name for parameter in step.trained}
    trainable = [name for name in json.loads((directory / "trainable.json").read_text()) if name in trained]
    known = {"trainable": trainable, "loss": "mse" if case.loss == "mse" else "cross_entropy"}
    (directory / "case.json").write_text(json.dumps(known), encoding="utf-8")
