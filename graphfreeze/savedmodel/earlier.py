"""Models that are the result of an earlier rewrite: the plan and the original graph that they carry along."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from graphfreeze.errors import UnsupportedError
from graphfreeze.savedmodel.files import parse_saved_model
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.plan_files import load_plan

__all__ = ["EarlierRewrite", "carried_plan", "find_earlier_rewrite", "original_directory", "original_file"]

_NOTES = Path("assets.extra") / "graphfreeze"
_MASKED_READ = re.compile(r".*/graphfreeze/(add|select)(_\d+)*")


@dataclass(frozen=True)
class EarlierRewrite:
    """What a rewritten SavedModel carries along.

    Attributes:
        plan: What is frozen in it.
        model: The graph that it was made from, with the checkpoint and assets of the rewritten model.
    """

    plan: FreezePlan
    model: SavedModel


def find_earlier_rewrite(model: SavedModel) -> EarlierRewrite | None:
    """The earlier rewrite that a model is the result of, or None where it is a plain model.

    Raises:
        ArtifactReadError: The plan that it carries along is corrupt.
        ModelReadError: The original graph that it carries along is missing or corrupt.
        UnsupportedError: It holds masked reads, and no plan: somebody saved a loaded rewritten model again.
    """
    plan = carried_plan(model.directory)
    if plan is not None:
        notes = model.directory / _NOTES
        original = notes / "original_saved_model.pb"
        content = original.read_bytes() if original.is_file() else b""
        base = SavedModel(parse_saved_model(content, str(original)), model.directory, model.tags)
        if base.checkpoint.without(base.object_graph)[1]:
            raise UnsupportedError(
                f"{model.directory} is the result of a rewrite that keeps large masks in the checkpoint. "
                "That cannot be rewritten again: fold it first, and rewrite the result with both selections."
            )
        return EarlierRewrite(plan, base)
    bodies = {f"function {name}": function.node_def for name, function in model.functions.items()}
    for where, nodes in (bodies | {MAIN_GRAPH: model.meta_graph.graph_def.node}).items():
        for node in nodes:
            if node.op in ("AddV2", "SelectV2") and _MASKED_READ.fullmatch(node.name):
                raise UnsupportedError(
                    f"{model.directory} holds masked reads of an earlier rewrite ({node.name} in {where}) "
                    "without its plan: it was loaded and saved again. Fold it first: "
                    f"graphfreeze fold OUT DEPLOY --state {model.directory}, with the OUT of that rewrite. Then "
                    "rewrite DEPLOY with both selections."
                )
    return None


def carried_plan(directory: Path) -> FreezePlan | None:
    """The plan of the rewrite that made a SavedModel, or None where no rewrite did.

    Raises:
        ArtifactReadError: It is corrupt.
    """
    notes = directory / _NOTES
    return load_plan(notes) if (notes / "plan.json").is_file() else None


def original_file(directory: Path, name: str) -> Path:
    """Where the original's file of that name lies: in the directory, or in what an earlier rewrite noted there."""
    notes = directory / _NOTES
    return notes / f"original_{name}" if (notes / "plan.json").is_file() else directory / name


@contextmanager
def original_directory(model: SavedModel) -> Iterator[Path]:
    """A directory from which TensorFlow loads the original: the model's own, or what an earlier rewrite noted of it."""
    notes = model.directory / _NOTES
    if not (notes / "plan.json").is_file():
        yield model.directory
        return
    with tempfile.TemporaryDirectory(prefix="graphfreeze-") as name:
        directory = Path(name)
        for kept in notes.glob("original_*"):
            (directory / kept.name.removeprefix("original_")).symlink_to(kept.resolve())
        for part in ("assets", "variables"):
            if (model.directory / part).is_dir():
                (directory / part).symlink_to((model.directory / part).resolve())
        yield directory
