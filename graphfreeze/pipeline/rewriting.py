"""`rewrite`: the stages in order, and an output that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from graphfreeze import __version__
from graphfreeze.errors import UnsupportedError
from graphfreeze.output import atomic_directory
from graphfreeze.pipeline.background import Background
from graphfreeze.pipeline.options import StrPath, merge_options, split_tags
from graphfreeze.pipeline.report import SCHEMA_VERSION, Report, describe_plan, in_report
from graphfreeze.pipeline.saved_model import (
    check_behaviour_of,
    check_keep_options,
    copies_ahead,
    keep_plan,
    prove_result,
    try_in_keras_2,
    write_saved_model,
)
from graphfreeze.pipeline.training import check_request, write_training
from graphfreeze.selection import Selection, resolve_plan
from graphfreeze.selection.compose import EffectiveValues, compose_plans
from graphfreeze.selection.forms import RequestedForm
from graphfreeze.tensorflow_loader import load_tensorflow

__all__ = ["rewrite"]

Progress = Callable[[str, int, int], None]


def rewrite(
    model: StrPath,
    out: StrPath,
    selections: Sequence[Selection] = (),
    *,
    spec: StrPath | None = None,
    form: RequestedForm | None = None,
    tags: str | Sequence[str] | None = None,
    only_in: Sequence[str] | None = None,
    loss: str | Sequence[str] | None = None,
    sample_weight: bool | None = None,
    optimizer: str | Sequence[str] | None = None,
    endpoint: str | None = None,
    forward_endpoint: str | None = None,
    onnx: bool | None = None,
    opset: int | None = None,
    data: StrPath | None = None,
    seed: int | None = None,
    checks: Literal["full", "static", "none"] | None = None,
    device: Literal["auto", "cpu", "cuda"] | None = None,
    noise: Literal["exact", "native"] | None = None,
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
        tags: Of several graphs in the SavedModel, the tags of the one whose names are meant (`serve` or `serve,gpu`).
            What is selected is frozen in all graphs that restore it.
        only_in: Endpoints to which the freeze is limited.
        loss: A Keras loss, `NAME[:key=value,...][:weight=W]`, or for several outputs one each, `OUTPUT=NAME...`. Needed
            unless `onnx` is False.
        sample_weight: Whether each example of the data has a weight, `sample_weight`.
        optimizer: A Keras optimizer, `NAME[:key=value,...]`, or several, of which those with a pattern are for the
            parameters that it matches, `PATTERN=NAME...`; the last that matches counts.
        endpoint: What to train; `serve`, else `serving_default`, else the only one.
        forward_endpoint: What forward.onnx computes; by default `endpoint`.
        onnx: Whether to write the ONNX training artifact.
        opset: The opset of the ONNX files, 18 to 26.
        data: An `.npz` or a directory of `.npy`: the batch for checks and reference. By default random.
        seed: The seed of everything random.
        checks: `full` runs both models in TensorFlow and the artifact on onnxruntime; `static` proves from the files;
            `none` checks nothing.
        device: Where onnxruntime validates.
        noise: `exact` draws TensorFlow's random numbers; `native` lets the training step draw floats of the same
            distributions by the runtime's own generator, which every device has.
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
        "tags": tags,
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
        "noise": noise,
        "keras2": keras2,
        "link": link,
    }
    options, selections = merge_options(given, selections, spec)
    load_tensorflow()
    stages = _Stages(progress, 3 if options.no_onnx else 6)
    from graphfreeze.prover import CopiesBeingWritten
    from graphfreeze.savedmodel.earlier import find_earlier_rewrite
    from graphfreeze.savedmodel.keras_metadata import is_keras_2
    from graphfreeze.savedmodel.model import SavedModel
    from graphfreeze.savedmodel.scope import find_scope

    stages.start("reading the model")
    source = SavedModel.load(model, split_tags(options.tags))
    if not options.no_onnx:
        if source.tags is not None:
            raise UnsupportedError(
                f"{source.directory} holds several graphs, of which no training step can be traced: rewrite the "
                "SavedModel alone with --no-onnx, and train it in a session"
            )
        check_request(source, options)
    keeps = options.keras2 == "keep" and is_keras_2(source.object_graph, source.directory)
    if keeps:
        check_keep_options(options)
    earlier = find_earlier_rewrite(source)
    if earlier is None:
        plan = resolve_plan(selections, source, form=options.form, only_in=options.only_in)
    else:
        # Masked reads do not stack: what was frozen before and what is frozen now goes into the original graph.
        source, before = earlier.model, EffectiveValues(earlier.model, earlier.plan)
        now = resolve_plan(selections, before, form=options.form, only_in=options.only_in)
        plan = compose_plans(earlier.plan, replace(now, tags=source.tags))
    plan = replace(plan, tags=source.tags)
    find_scope(source, plan.only_in)
    report: Report = {
        "schema_version": SCHEMA_VERSION,
        "graphfreeze": __version__,
        "dry_run": dry_run,
        "form": options.form,
        "only_in": list(plan.only_in),
        "tags": None if plan.tags is None else list(plan.tags),
        "variables": describe_plan(plan),
        "totals": {
            "variables": len(plan.variables),
            "elements": sum(v.elements for v in plan.variables),
            "frozen_elements": sum(v.frozen_elements for v in plan.variables),
        },
        "frozen_before": sum(v.frozen_elements for v in earlier.plan.variables) if earlier is not None else 0,
    }
    if dry_run:
        return report
    output = atomic_directory(Path(out), overwrite=overwrite, inputs=[Path(model)])
    with output as directory, Background() as background, CopiesBeingWritten() as compared:
        with copies_ahead(source, directory, options, None if options.checks == "none" else compared) as copies:
            plan = keep_plan(source, plan, directory / "plan", options, background)
            stages.start("rewriting the reads")
            report["checks"] = []
            write_saved_model(source, plan, directory, options, report, copies)
        if options.checks != "none":
            stages.start("proving the result")
            with in_report(report, "proof"):
                report["checks"].append(prove_result(Path(model), directory / "saved_model", plan, compared))
        background.finish()
        if keeps:
            report["checks"].append(try_in_keras_2(source, plan, directory, options))
        if not options.no_onnx:
            write_training(source, plan, directory, options, report, stages.start)
        elif options.checks == "full":
            check_behaviour_of(source, plan, directory, options, report, None)
        (directory / "report.json").write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return report


class _Stages:
    """Reports which stage is at work."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def start(self, name: str) -> None:
        if self.progress is not None:
            self.progress(name, self.done, self.total)
        self.done = min(self.done + 1, self.total)
