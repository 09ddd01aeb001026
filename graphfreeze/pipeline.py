"""The public functions around TensorFlow: `rewrite`, the stages in order, and inspect, verify and validate."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze import __version__
from graphfreeze.artifact import Artifact, inspect_artifact, load_data, read_artifact, write_artifact
from graphfreeze.artifact.manifest import Configuration, LossEntry
from graphfreeze.artifact.manifest_json import losses_to_json
from graphfreeze.errors import (
    ArtifactReadError,
    CheckFailedError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from graphfreeze.output import atomic_directory
from graphfreeze.selection import FreezePlan, Selection, Variable, load_plan, load_spec, resolve_plan, save_plan
from graphfreeze.selection.compose import EffectiveValues, compose_plans
from graphfreeze.selection.forms import RequestedForm
from graphfreeze.tensorflow_loader import load_tensorflow

if TYPE_CHECKING:
    from graphfreeze.assembly import Assembly
    from graphfreeze.checks.reference import Reference
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.training.trace import TracedStep

__all__ = ["inspect", "rewrite", "validate", "verify"]

SCHEMA_VERSION = 1
REFERENCE_BATCH_SIZE = 8
# The rules of lowering write operators of opset 18, which later ones only extend; onnxruntime ends at 26.
_OPSETS = range(18, 27)
_TRACED_CONSTANTS = 3 << 29
_RESTORED_BY_FOLD = ("saved_model.pb", "keras_metadata.pb")

StrPath = str | Path
Progress = Callable[[str, int, int], None]
Report = dict[str, Any]
Batch = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """The options of `rewrite` with their defaults; a spec file holds the same."""

    form: RequestedForm = "auto"
    only_in: Sequence[str] = ()
    loss: str | Sequence[str] | None = None
    sample_weight: bool = False
    optimizer: str = "sgd:learning_rate=0.01"
    endpoint: str | None = None
    forward_endpoint: str | None = None
    no_onnx: bool = False
    opset: int = 18
    data: StrPath | None = None
    seed: int = 0
    checks: Literal["full", "static", "none"] = "full"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    keras2: Literal["refuse", "keep"] = "refuse"
    link: bool = False


def rewrite(
    model: StrPath,
    out: StrPath,
    selections: Sequence[Selection] = (),
    *,
    spec: StrPath | None = None,
    form: RequestedForm | None = None,
    only_in: Sequence[str] | None = None,
    loss: str | Sequence[str] | None = None,
    sample_weight: bool | None = None,
    optimizer: str | None = None,
    endpoint: str | None = None,
    forward_endpoint: str | None = None,
    onnx: bool | None = None,
    opset: int | None = None,
    data: StrPath | None = None,
    seed: int | None = None,
    checks: Literal["full", "static", "none"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    keras2: Literal["refuse", "keep"] | None = None,
    link: bool | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Freeze the selected elements of an exported model and write the result with its ONNX training step.

    What is left at None comes from the spec file, or else is the default of `Options`.

    Args:
        model: A SavedModel. It is only read. What an earlier rewrite froze in it stays frozen, at the same values.
        out: The directory to make; it appears whole or not at all.
        selections: What to freeze and what to train, in order; those of the spec file come before them.
        spec: A TOML file with selections and options.
        form: The masked read: `blend`, `select`, or `auto`.
        only_in: Endpoints to which the freeze is limited.
        loss: A Keras loss, `NAME[:key=value,...][:weight=W]`, or for several outputs one each, `OUTPUT=NAME...`. Needed
            unless `onnx` is False.
        sample_weight: Whether each example of the data has a weight, `sample_weight`.
        optimizer: A Keras optimizer, `NAME[:key=value,...]`.
        endpoint: What to train; `serve`, else `serving_default`, else the only one.
        forward_endpoint: What forward.onnx computes; by default `endpoint`.
        onnx: Whether to write the ONNX training artifact.
        opset: The opset of the ONNX files, 18 to 26.
        data: An `.npz` or a directory of `.npy`: the batch for checks and reference. By default random.
        seed: The seed of everything random.
        checks: `full` runs both models in TensorFlow and the artifact on onnxruntime; `static` proves from the files;
            `none` checks nothing.
        device: Where onnxruntime validates.
        keras2: What `tf_keras.models.load_model` does with the result.
        link: Hard-link the checkpoint's shards instead of copying them.
        dry_run: Return the plan and write nothing.
        overwrite: Replace an earlier output.
        progress: Called with a stage, what is done and what there is.

    Returns:
        The report, JSON-ready, as written to OUT/report.json.

    Raises:
        UsageError: An option, selector, spec or data file is wrong.
        UnsupportedError: The model holds something that is not supported.
        FileError: The model cannot be read, or the output not written.
        CheckFailedError: A check failed; nothing is left behind.
    """
    given: dict[str, Any] = {
        "form": form,
        "only_in": only_in,
        "loss": loss,
        "sample_weight": sample_weight,
        "optimizer": optimizer,
        "endpoint": endpoint,
        "forward_endpoint": forward_endpoint,
        "no_onnx": None if onnx is None else not onnx,
        "opset": opset,
        "data": data,
        "seed": seed,
        "checks": checks,
        "device": device,
        "keras2": keras2,
        "link": link,
    }
    options, selections = _merge(given, selections, spec)
    load_tensorflow()
    stages = _Stages(progress, 3 if options.no_onnx else 6)
    from graphfreeze.savedmodel.earlier import find_earlier_rewrite
    from graphfreeze.savedmodel.keras_metadata import is_keras_2
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.savedmodel.scope import find_scope

    stages.start("reading the model")
    source = SavedModel.load(model)
    keeps = options.keras2 == "keep" and is_keras_2(source.object_graph, source.directory)
    if keeps:
        _check_keep_options(options)
    earlier = find_earlier_rewrite(source)
    if earlier is None:
        plan = resolve_plan(selections, source, form=options.form, only_in=options.only_in)
    else:
        # Masked reads do not stack: what was frozen before and what is frozen now goes into the original graph.
        source, before = earlier.model, EffectiveValues(earlier.model, earlier.plan)
        now = resolve_plan(selections, before, form=options.form, only_in=options.only_in)
        plan = compose_plans(earlier.plan, now)
    find_scope(source, plan.only_in)
    report: Report = {
        "schema_version": SCHEMA_VERSION,
        "graphfreeze": __version__,
        "dry_run": dry_run,
        "form": options.form,
        "only_in": list(plan.only_in),
        "variables": _describe(plan),
        "totals": {
            "variables": len(plan.variables),
            "elements": sum(v.elements for v in plan.variables),
            "frozen_elements": sum(v.frozen_elements for v in plan.variables),
        },
        "frozen_before": sum(v.frozen_elements for v in earlier.plan.variables) if earlier is not None else 0,
    }
    if dry_run:
        return report
    with atomic_directory(Path(out), overwrite=overwrite, inputs=[Path(model)]) as directory:
        (directory / "plan").mkdir()
        save_plan(plan, directory / "plan")
        # From here on, what is large is read from there, one variable at a time.
        plan = load_plan(directory / "plan")
        stages.start("rewriting the reads")
        report["checks"] = []
        _write_saved_model(source, plan, directory, options, report)
        if options.checks != "none":
            stages.start("proving the result")
            with _in_report(report, "proof"):
                report["checks"].append(_prove(Path(model), directory / "saved_model", plan))
        if keeps:
            report["checks"].append(_try_in_keras_2(source, plan, directory, options))
        if not options.no_onnx:
            _write_training(source, plan, directory, options, report, stages)
        elif options.checks == "full":
            _check_behaviour(source, plan, directory, options, report, None)
        (directory / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return report


def inspect(model: StrPath) -> Report:
    """List the variables and endpoints of a SavedModel, or summarise the OUT of a rewrite (without TensorFlow).

    Raises:
        FileError: It is neither, or cannot be read.
    """
    path = Path(model)
    if (path / "training" / "manifest.json").is_file() or (path / "manifest.json").is_file():
        return inspect_artifact(path)
    load_tensorflow()
    from graphfreeze.savedmodel.inspect import inspect as inspect_saved_model
    from graphfreeze.savedmodel.model import SavedModel

    out = path / "saved_model"
    return inspect_saved_model(SavedModel.load(out if (out / "saved_model.pb").is_file() else path))


def verify(original: StrPath, out: StrPath) -> Report:
    """Prove from the files that OUT freezes what its plan says and is otherwise the original.

    Raises:
        VerificationError: It is not; the message says where.
        FileError: A file is missing or corrupt.
    """
    load_tensorflow()
    from graphfreeze.savedmodel.earlier import original_file

    directory = Path(out)
    plan = load_plan(directory / "plan")
    evidence = _prove(Path(original), directory / "saved_model", plan)
    for name in _RESTORED_BY_FOLD:
        kept, source = directory / "plan" / f"original_{name}", original_file(Path(original), name)
        if _content(kept) != _content(source):
            raise VerificationError(f"{kept} is not the {name} of {original}: fold would restore another model")
    return {"schema_version": SCHEMA_VERSION, "passed": True, "variables": _describe(plan), "checks": [evidence]}


def validate(
    out: StrPath, *, device: Literal["auto", "cpu", "cuda"] = "auto", data: StrPath | None = None, steps: int = 5
) -> Report:
    """Compare the artifact's loss and gradients with TensorFlow's reference, and check that frozen elements stay.

    Needs no TensorFlow, unless `data` asks for a new reference.

    Args:
        out: The OUT of a rewrite.
        device: Where to run; `cuda` demands CUDA.
        data: A batch whose reference TensorFlow computes now, instead of the stored one.
        steps: How many optimizer steps to check the frozen elements over.

    Raises:
        ValidationError: Something disagrees, or the demanded device did not run it.
        ArtifactReadError: The artifact is missing or corrupt.
        DataError: The data does not fit.
    """
    from graphfreeze.validation import validate as validate_artifact

    if data is None:
        return validate_artifact(out, device=device, steps=steps)
    load_tensorflow()
    artifact = read_artifact(out)
    return validate_artifact(out, device=device, steps=steps, reference=_new_reference(artifact, data))


# -- the stages of rewrite


class _Stages:
    """Reports which stage is at work."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def start(self, name: str) -> None:
        if self.progress is not None:
            self.progress(name, self.done, self.total)
        self.done = min(self.done + 1, self.total)


def _merge(
    given: Mapping[str, Any], selections: Sequence[Selection], spec: StrPath | None
) -> tuple[Options, list[Selection]]:
    """What was asked for: arguments first, then the spec file, then the defaults."""
    merged: dict[str, Any] = {}
    ordered = list(selections)
    if spec is not None:
        loaded = load_spec(Path(spec))
        ordered = [*loaded.selections, *ordered]
        merged = {name: getattr(loaded, name) for name in given if getattr(loaded, name) is not None}
    merged |= {name: value for name, value in given.items() if value is not None}
    options = Options(**merged)
    if not ordered:
        raise UsageError("nothing is selected: give at least one selection to freeze")
    if options.opset not in _OPSETS:
        raise UsageError(f"the opset is {options.opset}, expected {_OPSETS[0]} to {_OPSETS[-1]}")
    if options.no_onnx and options.data is not None:
        raise UsageError(
            "data is a batch for the training step, which no_onnx leaves out; the checks draw random inputs then"
        )
    if not options.no_onnx and not options.loss:
        raise UsageError("the training step needs a loss: give one, or no_onnx to rewrite the SavedModel only")
    return options, ordered


def _describe(plan: FreezePlan) -> list[Report]:
    guarantees = {
        "blend": "no finite step moves a frozen element",
        "select": "no step moves a frozen element",
    }
    return [
        {
            "name": v.variable.name,
            "object_path": v.variable.object_path,
            "shape": list(v.variable.shape),
            "dtype": v.variable.dtype,
            "elements": v.elements,
            "frozen_elements": v.frozen_elements,
            "form": v.form,
            "guarantee": guarantees[v.form],
            "selectors": list(v.selectors),
        }
        for v in plan.variables
    ]


def _write_saved_model(source: SavedModel, plan: FreezePlan, directory: Path, options: Options, report: Report) -> None:
    from graphfreeze.passes.freeze_reads import freeze_reads
    from graphfreeze.passes.storage import Storage
    from graphfreeze.passes.write import write
    from graphfreeze.savedmodel.earlier import original_file

    # A training step is traced with masks and values as constants: what the plan freezes is part of its graphs.
    storage = Storage() if options.no_onnx else Storage(total=_TRACED_CONSTANTS)
    rewritten = freeze_reads(source, plan, keras2=options.keras2, storage=storage)
    if rewritten.stored and not options.no_onnx:
        raise UnsupportedError(
            f"the masks and frozen values take more than {_TRACED_CONSTANTS} bytes, which the graph of a training step "
            "cannot hold: freeze fewer elements, or rewrite the SavedModel alone with --no-onnx"
        )
    write(rewritten, directory / "saved_model", link=options.link)
    if rewritten.retagged:
        report["keras_2"] = {"load_model": options.keras2, "layers": list(rewritten.retagged)}
    by_path: dict[str, list[Report]] = {}
    updates: dict[str, list[Report]] = {}
    for read in rewritten.reads:
        by_path.setdefault(read.object_path, []).append(
            {
                "operation": read.operation,
                "function": read.function,
                "node": read.node,
                "endpoints": list(read.endpoints),
            }
        )
    for update in rewritten.updates:
        updates.setdefault(update.of, []).append(
            {
                "updates": update.name,
                "object_path": update.object_path,
                "operation": update.operation,
                "function": update.function,
                "node": update.node,
                "endpoints": list(update.endpoints),
            }
        )
    for variable in report["variables"]:
        variable["reads"] = by_path.get(variable["object_path"], [])
        variable["updates"] = updates.get(variable["object_path"], [])
    for name in _RESTORED_BY_FOLD:
        if (file := original_file(source.directory, name)).is_file():
            shutil.copyfile(file, directory / "plan" / f"original_{name}")
    # The rewritten SavedModel can stand alone: it carries the plan that it was made by.
    own_copy = directory / "saved_model" / "assets.extra" / "graphfreeze"
    shutil.copytree(directory / "plan", own_copy, dirs_exist_ok=True, copy_function=_link_or_copy)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _check_keep_options(options: Options) -> None:
    """Refuse what keeps `--keras2 keep` from trying its result, before any work is done."""
    from graphfreeze.checks.keras2 import require_tf_keras

    if options.checks == "static":
        raise UsageError(
            "--keras2 keep tries its result in tf_keras, and --checks static runs nothing of the model: "
            "give one of the two"
        )
    require_tf_keras()


def _try_in_keras_2(source: SavedModel, plan: FreezePlan, directory: Path, options: Options) -> Report:
    from graphfreeze.checks.keras2 import check_kept
    from graphfreeze.savedmodel.earlier import original_directory

    with original_directory(source) as original:
        return check_kept(original, directory / "saved_model", source.variables, plan, seed=options.seed)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _prove(original: Path, rewritten: Path, plan: FreezePlan) -> Report:
    from graphfreeze.prover import prove

    evidence = prove(original, rewritten, plan)
    return {
        "name": "proof",
        "passed": True,
        "message": "every read of every targeted variable is masked as planned, and nothing else changed",
        "evidence": evidence,
    }


def _check_behaviour(
    source: SavedModel, plan: FreezePlan, directory: Path, options: Options, report: Report, batch: Batch | None
) -> None:
    from graphfreeze.checks.behaviour import check_behaviour
    from graphfreeze.checks.updates import check_updates

    updated: dict[str, dict[str, str]] = {}
    for variable in report["variables"]:
        for update in variable["updates"]:
            for label in update["endpoints"]:
                name = label.partition(" ")[2]
                updated.setdefault(name, {})[update["object_path"]] = variable["object_path"]
    with _in_report(report, "behaviour"):
        report["checks"] += check_behaviour(
            source.directory,
            directory / "saved_model",
            source.variables,
            plan,
            data=batch,
            seed=options.seed,
            updating=updated.keys(),
        )
        if updated:
            rewritten = directory / "saved_model"
            report["checks"].append(
                check_updates(rewritten, source.variables, plan, updated, data=batch, seed=options.seed)
            )


def _check_scope(plan: FreezePlan, *endpoints: str) -> None:
    """Refuse a training step in which nothing would be frozen."""
    for name in endpoints:
        if plan.only_in and name not in plan.only_in:
            raise UsageError(
                f"the training step is made of the endpoint {name!r}, and the freeze is limited to "
                f"{', '.join(plan.only_in)}: choose one of these (--endpoint, --forward-endpoint), or write no ONNX"
            )


def _write_training(
    source: SavedModel, plan: FreezePlan, directory: Path, options: Options, report: Report, stages: _Stages
) -> None:
    from graphfreeze.assembly import assemble
    from graphfreeze.checks.reference import compute_reference
    from graphfreeze.training.mode import describe_mode

    stages.start("tracing the training step")
    step = _trace(directory / "saved_model", source.variables, plan, options)
    _check_scope(plan, step.endpoint.name, step.forward_endpoint.name)
    stages.start("lowering it to ONNX")
    assembly = assemble(step, opset=options.opset, seed=options.seed)
    batch = _batch(step, assembly, options)
    reference = compute_reference(step, batch, options.seed)
    write_artifact(
        directory / "training",
        assembly.manifest,
        assembly.graphs,
        assembly.state,
        _stored_reference(assembly, reference, batch),
    )
    report["training"] = {
        "endpoint": step.endpoint.name,
        "forward_endpoint": step.forward_endpoint.name,
        "mode": describe_mode(step),
        **losses_to_json(assembly.manifest.losses),
        "outputs_without_loss": list(step.objective.without_loss),
        "sample_weight": options.sample_weight,
        "optimizer": {"name": step.optimizer.name, "arguments": dict(step.optimizer.arguments)},
        "opset": options.opset,
        "nodes": {name: len(model.graph) for name, model in assembly.graphs.items()},
    }
    if options.checks == "full":
        from graphfreeze.checks.float64 import check_step_in_float64
        from graphfreeze.checks.single_step import check_single_steps
        from graphfreeze.validation import validate as validate_artifact

        stages.start("checking it")
        _check_behaviour(source, plan, directory, options, report, batch if options.data is not None else None)
        filters = [entry.name for entry in assembly.manifest.state if entry.permutation is not None]
        with _in_report(report, "float64"):
            report["checks"] += check_step_in_float64(
                step, batch, reference.gradients, filters=filters, opset=options.opset
            )
        with _in_report(report, "single optimizer steps"):
            report["checks"].append(check_single_steps(step, batch, directory / "training"))
        with _in_report(report, "validation"):
            validation = validate_artifact(directory, device=options.device)
            message = f"{len(validation['checks'])} checks of the artifact passed on {validation['device']}"
            report["checks"].append({"name": "validation", "passed": True, "message": message, "evidence": validation})


@contextmanager
def _in_report(report: Report, name: str) -> Iterator[None]:
    """Where a check fails, make the details of its error the report so far, with the failed check."""
    try:
        yield
    except CheckFailedError as error:
        found = error.details
        failed = {"name": name, "passed": False, "message": str(error), "evidence": found}
        checks = found["checks"] if found.keys() == {"checks"} else [failed]
        error.details = {**report, "checks": [*report["checks"], *checks]}
        raise


def _trace(saved_model: Path, variables: Sequence[Variable], plan: FreezePlan, options: Options) -> TracedStep:
    from graphfreeze.training.losses import parse_losses
    from graphfreeze.training.optimizers import parse_optimizer
    from graphfreeze.training.trace import trace_step

    return trace_step(
        saved_model,
        variables,
        plan,
        losses=parse_losses(options.loss or ()),
        optimizer=parse_optimizer(options.optimizer),
        endpoint=options.endpoint,
        forward_endpoint=options.forward_endpoint,
        sample_weight=options.sample_weight,
    )


def _batch(step: TracedStep, assembly: Assembly, options: Options) -> Batch:
    """The reference batch: the first examples of the user's data, or random ones."""
    from graphfreeze.training.batch import index_limits, random_inputs
    from graphfreeze.training.losses import sample_targets

    if options.data is not None:
        data = load_data(options.data, assembly.manifest.batch)
        return data.batch(slice(0, min(data.examples, REFERENCE_BATCH_SIZE)))
    rng = np.random.default_rng(options.seed)
    limits = index_limits(step.graphs["gradients"])
    batch = random_inputs(step.endpoint.inputs, limits, rng, REFERENCE_BATCH_SIZE)
    for term in step.objective.terms:
        shape = tuple(REFERENCE_BATCH_SIZE if size is None else size for size in term.target.shape)
        classes = term.output.shape[-1] if term.output.shape else 1
        batch[term.target.name] = sample_targets(term.loss.loss, rng, shape, classes or 1).astype(term.target.dtype)
    if (weights := step.objective.sample_weight) is not None:
        batch[weights.name] = rng.uniform(0.5, 1.5, weights.shape[0] or REFERENCE_BATCH_SIZE).astype(weights.dtype)
    return batch


def _stored_reference(assembly: Assembly, reference: Reference, batch: Batch) -> dict[str, npt.NDArray[Any]]:
    stored: dict[str, npt.NDArray[Any]] = {f"batch/{name}": array for name, array in batch.items()}
    for name, loss in reference.losses.items():
        stored[name] = np.asarray(loss)
        stored[f"noise/{name}"] = np.asarray(reference.loss_noise[name], np.float32)
    for name, gradient in reference.gradients.items():
        stored[f"gradient/{name}"] = assembly.stored(name, gradient)
        stored[f"noise/{name}"] = np.asarray(reference.noise[name], np.float32)
    return stored


def _written(entry: Configuration) -> str:
    """A loss or an optimizer of a manifest as it is written on the command line."""
    text = f"{entry.name}:" + ",".join(f"{key}={value}" for key, value in entry.arguments.items())
    if not isinstance(entry, LossEntry):
        return text
    output = "" if entry.output is None else f"{entry.output}="
    return f"{output}{text}:weight={entry.weight!r}"


def _new_reference(artifact: Artifact, data: StrPath) -> dict[str, npt.NDArray[Any]]:
    """TensorFlow's loss and gradients for the user's batch, from the rewritten SavedModel beside the artifact."""
    from graphfreeze.assembly import assemble
    from graphfreeze.checks.reference import compute_reference
    from graphfreeze.savedmodel.model import SavedModel

    manifest, out = artifact.manifest, artifact.directory.parent
    if not (out / "saved_model" / "saved_model.pb").is_file():
        raise ArtifactReadError(f"a new reference needs {out / 'saved_model'}, which is missing")
    options = Options(
        loss=[_written(loss) for loss in manifest.losses],
        sample_weight=any(entry.role == "sample_weight" for entry in manifest.batch),
        optimizer=_written(manifest.optimizer),
        endpoint=manifest.endpoint,
        forward_endpoint=manifest.forward_endpoint,
        data=data,
    )
    model = SavedModel.load(out / "saved_model")
    step = _trace(model.directory, model.variables, load_plan(out / "plan"), options)
    assembly = assemble(step, opset=manifest.opset, seed=manifest.seed)
    batch = _batch(step, assembly, options)
    return _stored_reference(assembly, compute_reference(step, batch, manifest.seed), batch)
