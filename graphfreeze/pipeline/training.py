"""The stages of `rewrite` about the training step: tracing it, lowering it, checking the artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact import load_data, write_artifact
from graphfreeze.artifact.configurations import losses_to_json, optimizers_to_json
from graphfreeze.errors import DataError, UnsupportedError, UsageError
from graphfreeze.pipeline.options import Batch, Options
from graphfreeze.pipeline.report import Report, in_report
from graphfreeze.pipeline.saved_model import check_behaviour_of
from graphfreeze.selection import FreezePlan

if TYPE_CHECKING:
    from graphfreeze.assembly import Assembly
    from graphfreeze.checks.reference import Reference
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.training.traced_step import TracedStep

__all__ = ["check_request", "reference_batch", "stored_reference", "trace", "write_training"]

REFERENCE_BATCH_SIZE = 8


def check_request(source: SavedModel, options: Options) -> None:
    """Refuse a loss, an optimizer, an endpoint or data that cannot be, before any work is done.

    Raises:
        UsageError: A name or an argument is wrong.
        DataError: There is no such data.
        UnsupportedError: The model takes references to variables, as TensorFlow 1 had them.
    """
    from graphfreeze.training.chosen_optimizers import parse_optimizers
    from graphfreeze.training.endpoint import TRAINING_ENDPOINT
    from graphfreeze.training.losses import parse_losses

    references = source.references_of_signatures
    if references:
        raise UnsupportedError(
            f"{source.directory} takes the reference variable {references[0]!r} in a signature, as TensorFlow 1 wrote "
            "variables that are no resources. tf.saved_model.load does not give access to these, so that no training "
            "step can be traced: rewrite the SavedModel alone with --no-onnx, and train it in a session"
        )
    parse_losses(options.loss or ())
    parse_optimizers(options.optimizer)
    names = {endpoint.name for endpoint in source.endpoints}
    for name in (options.endpoint, options.forward_endpoint):
        # The call of a Keras 2 save in training mode is an endpoint without being one of the file.
        if name is not None and name not in names | {TRAINING_ENDPOINT}:
            raise UsageError(f"no endpoint {name!r}; the model has: {', '.join(sorted(names)) or 'none'}")
    if options.data is not None and not Path(options.data).exists():
        raise DataError(f"the data {options.data} does not exist: expected an .npz, or a directory of .npy")


def write_training(
    source: SavedModel,
    plan: FreezePlan,
    directory: Path,
    options: Options,
    report: Report,
    start: Callable[[str], None],
) -> None:
    """Write the ONNX training artifact of the rewritten SavedModel and check it.

    Raises:
        UnsupportedError: Something in the training step has no rule.
        CheckFailedError: A check failed.
    """
    from graphfreeze.assembly import assemble
    from graphfreeze.checks.reference import compute_reference
    from graphfreeze.training.frozen_slices import describe_frozen_slices
    from graphfreeze.training.mode import describe_mode

    start("tracing the training step")
    step = trace(directory / "saved_model", source, plan, options)
    _check_scope(plan, step.endpoint.name, step.forward_endpoint.name)
    start("lowering it to ONNX")
    assembly = assemble(step, opset=options.opset, seed=options.seed, native_noise=options.noise == "native")
    batch = reference_batch(step, assembly, options)
    reference = compute_reference(step, batch, options.seed)
    if options.checks == "full":
        _require_numbers(reference)
    write_artifact(
        directory / "training",
        assembly.manifest,
        assembly.graphs,
        assembly.state,
        stored_reference(assembly, reference, batch),
    )
    report["training"] = {
        "endpoint": step.endpoint.name,
        "forward_endpoint": step.forward_endpoint.name,
        "mode": describe_mode(step),
        "noise": options.noise,
        "drawn_without_seed": [] if step.noise is None else list(step.noise.draws),
        **losses_to_json(assembly.manifest.losses),
        "outputs_without_loss": list(step.objective.without_loss),
        "constraints_left_out": _constraints_left_out(source),
        "sample_weight": options.sample_weight,
        **optimizers_to_json(assembly.manifest.optimizers),
        "opset": options.opset,
        "frozen_slices": describe_frozen_slices(step),
        "nodes": {name: len(model.graph) for name, model in assembly.graphs.items()},
    }
    if options.checks == "full":
        from graphfreeze.checks.float64 import check_step_in_float64
        from graphfreeze.checks.single_step import check_single_steps
        from graphfreeze.validation import validate as validate_artifact

        start("checking it")
        check_behaviour_of(source, plan, directory, options, report, batch if options.data is not None else None)
        filters = [entry.name for entry in assembly.manifest.state if entry.permutation is not None]
        with in_report(report, "float64"):
            report["checks"] += check_step_in_float64(step, batch, filters=filters, opset=options.opset)
        with in_report(report, "single optimizer steps"):
            report["checks"].append(check_single_steps(step, batch, directory / "training"))
        with in_report(report, "validation"):
            validation = validate_artifact(directory, device=options.device)
            message = f"{len(validation['checks'])} checks of the artifact passed on {validation['device']}"
            report["checks"].append({"name": "validation", "passed": True, "message": message, "evidence": validation})


def _require_numbers(reference: Reference) -> None:
    """Refuse a batch of which nothing can be told.

    Raises:
        DataError: TensorFlow's loss or a gradient is not finite.
    """
    found = {**reference.losses, **{f"the gradient of {name}": value for name, value in reference.gradients.items()}}
    odd = [name for name, value in found.items() if not np.isfinite(value.astype(np.float64)).all()]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise DataError(
            f"TensorFlow's own step gives no finite number for {odd[0]}{more} on the batch that it is checked with, so "
            "that nothing can be compared. Give a batch that it is finite on with --data (of smaller numbers say), "
            "scale the loss by less where loss_scale is given, or leave the comparison out with --checks static"
        )


def _constraints_left_out(source: SavedModel) -> list[str]:
    from graphfreeze.savedmodel.earlier import original_file
    from graphfreeze.savedmodel.keras_metadata import (
        KERAS_METADATA,
        keras_notes,
        noted_constraints,
        read_keras_metadata,
    )

    saved = read_keras_metadata(original_file(source.directory, KERAS_METADATA))
    return noted_constraints(keras_notes(source.object_graph, saved, source.directory))


def _check_scope(plan: FreezePlan, *endpoints: str) -> None:
    """Refuse a training step in which nothing would be frozen."""
    for name in endpoints:
        if plan.only_in and name not in plan.only_in:
            raise UsageError(
                f"the training step is made of the endpoint {name!r}, and the freeze is limited to "
                f"{', '.join(plan.only_in)}: choose one of these (--endpoint, --forward-endpoint), or write no ONNX"
            )


def trace(saved_model: Path, source: SavedModel, plan: FreezePlan, options: Options) -> TracedStep:
    """The training step that the options ask for, traced by TensorFlow. What is stored is as in the source."""
    from graphfreeze.savedmodel.keras_metadata import is_keras_2
    from graphfreeze.training.chosen_optimizers import parse_optimizers
    from graphfreeze.training.losses import parse_losses
    from graphfreeze.training.trace import trace_step

    return trace_step(
        saved_model,
        source.variables,
        plan,
        losses=parse_losses(options.loss or ()),
        optimizers=parse_optimizers(options.optimizer),
        endpoint=options.endpoint,
        forward_endpoint=options.forward_endpoint,
        sample_weight=options.sample_weight,
        seed=options.seed,
        by_rows=not is_keras_2(source.object_graph, source.directory),
        read=source.read,
    )


def reference_batch(step: TracedStep, assembly: Assembly, options: Options) -> Batch:
    """The reference batch: the first examples of the user's data, or random ones."""
    from graphfreeze.training.batch import index_limits, random_inputs, sample_shape
    from graphfreeze.training.losses import sample_targets

    if options.data is not None:
        data = load_data(options.data, assembly.manifest.batch)
        return data.batch(slice(0, min(data.examples, REFERENCE_BATCH_SIZE)))
    rng = np.random.default_rng(options.seed)
    limits = index_limits(step.graphs["gradients"])
    batch = random_inputs(step.endpoint.inputs, limits, rng, REFERENCE_BATCH_SIZE)
    for term in step.objective.terms:
        shape = sample_shape(term.target.shape, REFERENCE_BATCH_SIZE)
        classes = term.output.shape[-1] if term.output.shape else 1
        batch[term.target.name] = sample_targets(term.loss.loss, rng, shape, classes or 1).astype(term.target.dtype)
    if (weights := step.objective.sample_weight) is not None:
        batch[weights.name] = rng.uniform(0.5, 1.5, weights.shape[0] or REFERENCE_BATCH_SIZE).astype(weights.dtype)
    return batch


def stored_reference(assembly: Assembly, reference: Reference, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    """The tensors of reference.safetensors: the batch, and TensorFlow's losses and gradients with their noise."""
    stored: dict[str, npt.NDArray[Any]] = {f"batch/{name}": array for name, array in batch.items()}
    for name, loss in reference.losses.items():
        stored[name] = np.asarray(loss)
        stored[f"noise/{name}"] = np.asarray(reference.loss_noise[name], np.float32)
    for name, gradient in reference.gradients.items():
        stored[f"gradient/{name}"] = assembly.stored(name, gradient)
        stored[f"noise/{name}"] = np.asarray(reference.noise[name], np.float32)
    for name, coarse in reference.coarse.items():
        known = {"roundoff": coarse.roundoff, "calm_noise": coarse.noise, "slope_noise": coarse.slope_noise}
        stored |= {f"{kind}/{name}": np.asarray(value, np.float32) for kind, value in known.items()}
    return stored
