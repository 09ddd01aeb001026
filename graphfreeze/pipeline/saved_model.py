"""The stages of `rewrite` about the SavedModel: writing it, proving it, comparing it in TensorFlow."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.pipeline.background import Background
from graphfreeze.pipeline.options import Batch, Options
from graphfreeze.pipeline.report import Report, in_report
from graphfreeze.selection import FreezePlan, load_plan, save_plan

if TYPE_CHECKING:
    from graphfreeze.passes.copying import CopiesAhead
    from graphfreeze.passes.storage import Storage
    from graphfreeze.prover import CopiesBeingWritten
    from graphfreeze.savedmodel.model import SavedModel

__all__ = [
    "RESTORED_BY_FOLD",
    "check_behaviour_of",
    "check_keep_options",
    "copies_ahead",
    "keep_plan",
    "prove_result",
    "try_in_keras_2",
    "write_saved_model",
]

RESTORED_BY_FOLD = ("saved_model.pb", "keras_metadata.pb")
_TRACED_CONSTANTS = 3 << 29


def keep_plan(
    source: SavedModel, plan: FreezePlan, directory: Path, options: Options, background: Background
) -> FreezePlan:
    """Write the plan, and read it again: from then on, what is large is read from there, one variable at a time.

    Values that stay in the checkpoint are not needed here, but their checksums must be right: that is found out in the
    background.

    Raises:
        ModelReadError: A frozen value cannot be read, or its checksum is wrong.
    """
    from graphfreeze.passes.extend_checkpoint import values_in_checkpoint
    from graphfreeze.savedmodel.own_values import check_stored, read_unchanged

    checksums = values_in_checkpoint(source, plan, _storage(options))
    for frozen in plan.variables:
        if frozen.variable.object_path in checksums and not source.was_read(frozen.variable):
            background.start(partial(check_stored, source, frozen.variable))
    directory.mkdir()
    save_plan(plan, directory, checksums)
    return load_plan(directory, partial(read_unchanged, source))


def copies_ahead(
    source: SavedModel, directory: Path, options: Options, compared: CopiesBeingWritten | None
) -> CopiesAhead:
    """Begin to copy the checkpoint of a model that is to be written into the directory, and to compare the copies."""
    from graphfreeze.passes.copying import CopiesAhead
    from graphfreeze.savedmodel.files import VARIABLES_PREFIX

    prefix = source.directory / VARIABLES_PREFIX
    shards = () if options.link else sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
    return CopiesAhead(shards, directory / ".copies", None if compared is None else compared.written)


def write_saved_model(
    source: SavedModel, plan: FreezePlan, directory: Path, options: Options, report: Report, copies: CopiesAhead
) -> None:
    """Write the rewritten SavedModel and what fold needs, and report each read and update that was masked."""
    from graphfreeze.passes.several_graphs import freeze
    from graphfreeze.passes.write import write
    from graphfreeze.savedmodel.earlier import original_file

    rewritten = freeze(source, plan, keras2=options.keras2, storage=_storage(options))
    if rewritten.stored and not options.no_onnx:
        raise UnsupportedError(
            f"the masks and frozen values take more than {_TRACED_CONSTANTS} bytes, which the graph of a training step "
            "cannot hold: freeze fewer elements, or rewrite the SavedModel alone with --no-onnx"
        )
    write(rewritten, directory / "saved_model", link=options.link, copy=copies.take)
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
    for name in RESTORED_BY_FOLD:
        if (file := original_file(source.directory, name)).is_file():
            shutil.copyfile(file, directory / "plan" / f"original_{name}")
    if not (original := directory / "plan" / "original_saved_model.pb").is_file():
        # It was a text; what is made of it is not.
        original.write_bytes(source.whole.SerializeToString(deterministic=True))
    # The rewritten SavedModel can stand alone: it carries the plan that it was made by.
    own_copy = directory / "saved_model" / "assets.extra" / "graphfreeze"
    shutil.copytree(directory / "plan", own_copy, dirs_exist_ok=True, copy_function=_link_or_copy)


def prove_result(
    original: Path, rewritten: Path, plan: FreezePlan, compared: CopiesBeingWritten | None = None
) -> Report:
    """Prove a rewritten SavedModel from the files, some of which may have been compared when they were written.

    Raises:
        VerificationError: The proof fails.
    """
    from graphfreeze.prover import prove

    evidence = prove(original, rewritten, plan, copies=compared)
    return {
        "name": "proof",
        "passed": True,
        "message": "every read of every targeted variable is masked as planned, and nothing else changed",
        "evidence": evidence,
    }


def check_behaviour_of(
    source: SavedModel, plan: FreezePlan, directory: Path, options: Options, report: Report, batch: Batch | None
) -> None:
    """Run original and rewritten model in TensorFlow, on a batch or random inputs, and compare bits.

    Raises:
        CheckFailedError: They differ.
    """
    from graphfreeze.checks.behaviour import check_behaviour
    from graphfreeze.checks.sessions import check_sessions
    from graphfreeze.checks.updates import check_updates
    from graphfreeze.passes.several_graphs import part_of_plan

    updated: dict[str, dict[str, str]] = {}
    for variable in report["variables"]:
        for update in variable["updates"]:
            for label in update["endpoints"]:
                name = label.partition(" ")[2]
                updated.setdefault(name, {})[update["object_path"]] = variable["object_path"]
    if not source.has_objects:
        with in_report(report, "behaviour"):
            report["checks"] += check_sessions(source, directory / "saved_model", plan, updated, seed=options.seed)
            for other in source.others:
                part = part_of_plan(other, source, plan)
                if part.variables:
                    report["checks"] += check_sessions(other, directory / "saved_model", part, {}, seed=options.seed)
        return
    with in_report(report, "behaviour"):
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


def check_keep_options(options: Options) -> None:
    """Refuse what keeps `--keras2 keep` from trying its result, before any work is done."""
    from graphfreeze.checks.keras2 import require_tf_keras

    if options.checks == "static":
        raise UsageError(
            "--keras2 keep tries its result in tf_keras, and --checks static runs nothing of the model: "
            "give one of the two"
        )
    require_tf_keras()


def try_in_keras_2(source: SavedModel, plan: FreezePlan, directory: Path, options: Options) -> Report:
    """Load and train the result in tf_keras.

    Raises:
        CheckFailedError: It does not stay frozen there.
    """
    from graphfreeze.checks.keras2 import check_kept
    from graphfreeze.savedmodel.earlier import original_directory

    with original_directory(source) as original:
        return check_kept(original, directory / "saved_model", source.variables, plan, seed=options.seed)


def _storage(options: Options) -> Storage:
    """When masks and frozen values go into the checkpoint."""
    from graphfreeze.passes.storage import Storage

    # A training step is traced with masks and values as constants: what the plan freezes is part of its graphs.
    return Storage() if options.no_onnx else Storage(total=_TRACED_CONSTANTS)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
