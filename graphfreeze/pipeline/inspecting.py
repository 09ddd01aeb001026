"""`inspect`: what a SavedModel or an OUT holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graphfreeze.artifact import inspect_artifact
from graphfreeze.pipeline.options import StrPath, split_tags
from graphfreeze.pipeline.report import Report, describe_plan
from graphfreeze.tensorflow_loader import load_tensorflow

__all__ = ["inspect"]


def inspect(model: StrPath, *, tags: str | Sequence[str] | None = None) -> Report:
    """List the variables and endpoints of a SavedModel, or summarise the OUT of a rewrite (without TensorFlow).

    Args:
        model: The SavedModel, or the OUT.
        tags: Of several graphs in the SavedModel, the tags of the one to describe (`serve` or `serve,gpu`).

    Raises:
        UsageError: The tags choose no graph.
        FileError: It is neither, or cannot be read.
    """
    path = Path(model)
    if (path / "training" / "manifest.json").is_file() or (path / "manifest.json").is_file():
        return inspect_artifact(path)
    load_tensorflow()
    from graphfreeze.savedmodel.earlier import carried_plan
    from graphfreeze.savedmodel.inspect import inspect as inspect_saved_model
    from graphfreeze.savedmodel.model import SavedModel

    out = path / "saved_model"
    saved_model = SavedModel.load(out if (out / "saved_model.pb").is_file() else path, split_tags(tags))
    plan = carried_plan(saved_model.directory)
    report = inspect_saved_model(saved_model)
    return report if plan is None else {**report, "frozen": describe_plan(plan)}
