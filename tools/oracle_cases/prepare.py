"""Converts a case, and writes what onnxruntime-training needs to derive the gradients by itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.artifact import write_artifact
from graphfreeze.assembly import Assembly, assemble
from graphfreeze.checks.double_precision import promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.checks.reference import compute_reference
from graphfreeze.errors import UnsupportedError
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.endpoint import ADDED_LOSSES, MASK_PREFIX, TRAINING_ENDPOINT
from graphfreeze.training.keras_endpoints import write_endpoints
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.trace import trace_step
from graphfreeze.training.traced_step import TracedStep
from tools.bench_cases.forward_model import write_forward_model
from tools.coverage_cases.case import Case
from tools.coverage_cases.measure import draw_batch

__all__ = ["MODELS_GROUP", "prepare"]

_SEED = 0

MODELS_GROUP = "models"
"""The cases that are large enough to amplify rounding."""


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
        optimizers=parse_optimizers("sgd"),
        endpoint=TRAINING_ENDPOINT,
        forward_endpoint=TRAINING_ENDPOINT,
        seed=_SEED,
    )
    if any(entry.name == ADDED_LOSSES for entry in step.endpoint.outputs):
        raise UnsupportedError("the model adds losses of its own, which its forward graph does not")
    if any(entry.name.startswith(MASK_PREFIX) for entry in step.endpoint.outputs):
        raise UnsupportedError("the output has a mask, which the oracle's loss does not know")
    assembly = assemble(step, opset=18, seed=_SEED)
    batch = draw_batch(case, step)
    reference = stored_reference(assembly, compute_reference(step, batch, _SEED), batch)
    write_artifact(directory / "training", assembly.manifest, assembly.graphs, assembly.state, reference)
    write_forward_model(directory, directory, case.batch_size)
    np.savez(directory / "batch.npz", **{name: np.asarray(array) for name, array in batch.items()})  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    if case.group == MODELS_GROUP:
        _write_float64(step, assembly, batch, directory)
    trained = {parameter.name for parameter in step.trained}
    trainable = [name for name in json.loads((directory / "trainable.json").read_text()) if name in trained]
    known = {"trainable": trainable, "loss": "mse" if case.loss == "mse" else "cross_entropy"}
    (directory / "case.json").write_text(json.dumps(known), encoding="utf-8")


def _write_float64(
    step: TracedStep, assembly: Assembly, batch: Mapping[str, npt.NDArray[Any]], directory: Path
) -> None:
    """Write `float64.npz`: the gradients as TensorFlow computes them in float64, where rounding hides nothing."""
    promoted = promote_graph(step.graphs["gradients"])
    values = {**batch, **step.values(), **step.constants}
    given = [tf.constant(promote_array(values[name])) for name in promoted.inputs]
    results = dict(zip(promoted.outputs, Interpreter(promoted.graph)(given), strict=True))
    exact = {p.name: assembly.stored(p.name, results[f"gradient/{p.name}"].numpy()) for p in step.trained}
    np.savez(directory / "float64.npz", **exact)  # type: ignore[arg-type] # as above
