"""Converts one case as `rewrite` does, and compares what comes out with TensorFlow."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.artifact import read_artifact, write_artifact
from graphfreeze.artifact.layout import to_tensorflow
from graphfreeze.assembly import Assembly, assemble
from graphfreeze.checks.float64 import check_step_in_float64
from graphfreeze.checks.reference import Reference, call_gradients, compute_reference, restored
from graphfreeze.checks.single_step import check_single_steps
from graphfreeze.errors import CheckFailedError, GraphfreezeError
from graphfreeze.lowering.filters import convolution_filters
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.batch import index_limits, random_inputs, sample_shape
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.endpoint import TRAINING_ENDPOINT
from graphfreeze.training.losses import parse_losses, sample_targets
from graphfreeze.training.trace import trace_step
from graphfreeze.training.traced_step import TracedStep
from graphfreeze.validation.composition import check_composition
from graphfreeze.validation.tolerance import Comparison, compare, scale_of
from tools.coverage_cases.case import Case
from tools.coverage_cases.exports import SEED, Exports

__all__ = ["Measurement", "Workspace", "draw_batch"]

OPSET = 18
_CHAOTIC = 1e-3
"""Gradients that move by this part of themselves when the last bit of an input changes decide nothing."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Measurement:
    """What a case showed.

    Attributes:
        case: The case.
        outcome: "agrees", "agrees in float64" (where float32 does not decide), "disagrees", "undecided" (what differs
            moves in TensorFlow itself by more than a thousandth with the last bit of the inputs, and float64 does not
            decide either), "refused" (by an error of graphfreeze) or "fails" (in any other way).
        detail: What disagrees, or the whole refusal.
        operations: TensorFlow operations of the training step, bodies included.
        nodes: ONNX nodes of train_step.onnx, bodies included.
        loss_error: Of the loss, relative.
        gradient_error: The largest relative error of a gradient in the Euclidean norm.
        noise: By how much that gradient moves in TensorFlow with the last bit of parameters and inputs, relative to
            its largest element.
        seconds: For tracing and lowering.
    """

    case: Case
    outcome: str = "fails"
    detail: str = ""
    operations: int | None = None
    nodes: int | None = None
    loss_error: float | None = None
    gradient_error: float | None = None
    noise: float | None = None
    seconds: float | None = None


class Workspace(Exports):
    """Measures cases in a directory of its own."""

    def measure(self, case: Case) -> Measurement:
        """Export, trace, lower, write, run and compare. Every failure is an outcome."""
        found = Measurement(case)
        try:
            self._measure(case, found)
        except CheckFailedError as error:
            found.outcome, found.detail = "disagrees", str(error)
        except GraphfreezeError as error:
            found.outcome, found.detail = "refused", str(error)
        except Exception as error:  # one failing case must not stop the others
            found.detail = f"{type(error).__name__}: {error}"
        finally:
            keras.backend.clear_session()
        return found

    def _measure(self, case: Case, found: Measurement) -> None:
        saved_model = self.export(case)
        variables = SavedModel.load(saved_model).variables
        start = time.perf_counter()
        step = trace_step(
            saved_model,
            variables,
            FreezePlan(),
            losses=parse_losses(case.loss),
            optimizers=parse_optimizers(case.optimizer),
            endpoint=TRAINING_ENDPOINT,
        )
        found.operations = sum(1 for _ in step.graphs["train_step"].graph.walk())
        assembly = assemble(step, opset=OPSET, seed=SEED)
        found.seconds = time.perf_counter() - start
        found.nodes = sum(1 for _ in assembly.graphs["train_step"].graph.all_nodes())
        batch = draw_batch(case, step)
        reference = compute_reference(step, batch, SEED)
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            training = Path(name) / "training"
            stored = _stored(assembly, reference, batch)
            write_artifact(training, assembly.manifest, assembly.graphs, assembly.state, stored)
            problems, is_chaotic = _compare(step, training, batch, reference, found)
            if case.steps:
                check_single_steps(step, batch, training)
        found.outcome = "agrees" if not problems else "undecided" if is_chaotic else "disagrees"
        found.detail = "; ".join(problems)
        if problems:
            reasons = _float64_reasons(step, batch, reference)
            found.outcome = found.outcome if reasons else "agrees in float64"
            found.detail = f"{found.detail}; in float64 {reasons[0]}" if reasons else ""


def draw_batch(case: Case, step: TracedStep) -> Arrays:
    """Inputs as the case draws them, and targets that fit its loss."""
    rng = np.random.default_rng(SEED)
    batch = random_inputs(step.endpoint.inputs, index_limits(step.graphs["gradients"]), rng, case.batch_size)
    for name in sorted(case.inputs.keys() & batch.keys()):
        draw = case.inputs[name]
        batch[name] = np.asarray(draw(rng, batch[name].shape)).astype(batch[name].dtype)
    for term in step.objective.terms:
        shape = sample_shape(term.target.shape, case.batch_size)
        classes = term.output.shape[-1] if term.output.shape else 1
        batch[term.target.name] = sample_targets(term.loss.loss, rng, shape, classes or case.batch_size).astype(
            term.target.dtype
        )
    return batch


def _stored(assembly: Assembly, reference: Reference, batch: Arrays) -> Arrays:
    stored: Arrays = {f"batch/{name}": array for name, array in batch.items()}
    for name, loss in reference.losses.items():
        stored |= {name: np.asarray(loss), f"noise/{name}": np.asarray(reference.loss_noise[name], np.float32)}
    for name, gradient in reference.gradients.items():
        stored[f"gradient/{name}"] = assembly.stored(name, gradient)
        stored[f"noise/{name}"] = np.asarray(reference.noise[name], np.float32)
    return stored


def _compare(
    step: TracedStep, training: Path, batch: Arrays, reference: Reference, found: Measurement
) -> tuple[list[str], bool]:
    """Compare loss, gradients, new model state, predictions, and the training step with its two parts.

    Returns:
        What differs, and whether all of it is too chaotic to be compared.
    """
    artifact, device = read_artifact(training), choose_device("cpu")
    entries = {entry.name: entry for entry in artifact.manifest.state}
    feeds = {**artifact.state, **batch}
    outputs = GraphRunner(artifact, "gradients", device)(feeds)
    loss = compare(
        outputs["loss"],
        reference.losses["loss"],
        largest=scale_of(reference.losses["loss"]),
        noise=reference.loss_noise["loss"],
    )
    found.loss_error = loss.relative_l2
    compared = {"loss": loss}
    largest = max((scale_of(gradient) for gradient in reference.gradients.values()), default=0.0)
    for name, gradient in reference.gradients.items():
        ours = to_tensorflow(outputs[f"gradient/{name}"], entries[name])
        item = compare(ours, gradient, largest=largest, noise=reference.noise[name], coarse=reference.coarse.get(name))
        compared[f"gradient/{name}"] = item
        if item.rule != "zero" and (found.gradient_error is None or not item.relative_l2 <= found.gradient_error):
            found.gradient_error = item.relative_l2
            found.noise = item.noise / item.scale if item.scale else 0.0
    state = {name: value for name, value in _new_state(step, batch).items() if f"new/{name}" in outputs}
    # A mean that is zero but for rounding is judged by the sizes of the other statistics, as gradients are.
    largest = max((scale_of(value) for value in state.values() if value.dtype.kind in "fV"), default=0.0)
    for name, value in state.items():
        compared[f"new/{name}"] = _alone(to_tensorflow(outputs[f"new/{name}"], entries[name]), value, largest)
    entries_in = [entry.name for entry in step.forward_endpoint.inputs]
    if set(entries_in) <= set(batch):
        expected = step.functions["forward"](*(tf.constant(batch[name]) for name in entries_in))
        predicted = GraphRunner(artifact, "forward", device)(feeds)
        names = [name for name in artifact.manifest.graphs["forward"].outputs if name.startswith("output/")]
        for name, value in zip(names, expected, strict=True):
            compared[name] = _alone(predicted[name], value.numpy())
    different = {name: item for name, item in compared.items() if not item.accepted}
    problems = [
        f"{name}: {item.rule}, error {item.error:.2g} of {item.scale:.2g}, allowed {item.allowed:.2g}"
        for name, item in different.items()
    ]
    is_chaotic = all(item.noise > _CHAOTIC * item.scale for item in different.values())
    composition = check_composition(artifact, device, feeds)
    if not composition.passed:
        return [*problems, composition.message], False
    return problems, is_chaotic


def _float64_reasons(step: TracedStep, batch: Arrays, reference: Reference) -> list[str]:
    """Compare the gradients where rounding hides nothing; returns why that was not possible, if so.

    Raises:
        ValidationError: They are not TensorFlow's.
    """
    filters = convolution_filters(step.graphs["gradients"])
    checks = check_step_in_float64(step, batch, filters=filters, opset=OPSET)
    return [check["message"] for check in checks[:1] if check["evidence"]["status"] != "compared"]


def _alone(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], largest: float | None = None) -> Comparison:
    if theirs.dtype.kind in "fV":
        return compare(ours, theirs, largest=scale_of(theirs) if largest is None else largest)
    error = float(np.count_nonzero(ours != theirs))
    return Comparison(not error, "different" if error else "exact", error, error, scale_of(theirs), 0.0, 0.0)


def _new_state(step: TracedStep, batch: Arrays) -> Arrays:
    """Statistics and seeds after TensorFlow's forward pass."""
    with restored(step):
        call_gradients(step, batch)
        return {p.name: p.resource.numpy() for p in step.parameters if not p.variable.trainable}
