"""Folding: the original graph again, with the trained and the frozen values merged in its checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.errors import DataError, ModelReadError, OutputError, UsageError
from graphfreeze.passes.write import copy_files, write_fingerprint
from graphfreeze.savedmodel.checkpoint import OBJECT_GRAPH_KEY
from graphfreeze.savedmodel.checkpoint_writer import write_checkpoint
from graphfreeze.savedmodel.files import VARIABLES_PREFIX, parse_saved_model
from graphfreeze.savedmodel.graph_variables import Stored
from graphfreeze.savedmodel.keras_metadata import KERAS_METADATA
from graphfreeze.savedmodel.lazy_arrays import LazyArrays
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.session_keys import session_keys
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable

__all__ = ["fold"]


def fold(
    original: bytes | str | os.PathLike[str],
    rewritten: str | os.PathLike[str],
    plan: FreezePlan,
    trained: Mapping[str, npt.NDArray[Any]],
    destination: str | os.PathLike[str],
    *,
    others: Mapping[str, npt.NDArray[Any]] | None = None,
    keras_metadata: bytes | None = None,
) -> None:
    """Write a plain SavedModel whose weights are the effective values of a trained, rewritten one.

    Its `saved_model.pb` is the original's, byte for byte. Of a targeted variable, trainable elements are the trained
    ones and frozen elements the plan's; the trained array's own frozen elements, which weight decay may have moved, do
    not count. Values that are not in `trained` are the checkpoint's. Session loaders, which restore some exports from
    keys of their own, see the same values. Values are read, merged and written one at a time.

    Args:
        original: The original `saved_model.pb`, as bytes or as a path.
        rewritten: The rewritten SavedModel's directory, whose checkpoint and assets are taken.
        plan: The freeze plan.
        trained: Object path -> value, of the variable's shape and dtype.
        destination: Where to; it must not exist, or be empty.
        others: Checkpoint key -> value, of what is no variable and may have changed, such as tables.
        keras_metadata: The original `keras_metadata.pb`, of a Keras 2 save.

    Raises:
        UsageError: The freeze is limited to some endpoints, and the others take other values.
        DataError: `trained` names a variable that the model lacks, or a value has the wrong shape or dtype.
        ModelReadError: The original or the checkpoint cannot be read.
        OutputError: The destination holds something, or cannot be written.
    """
    content = original if isinstance(original, bytes) else _read(Path(original))
    source, target = Path(rewritten), Path(destination)
    model = SavedModel(parse_saved_model(content, "the original saved_model.pb"), source, plan.tags)
    merged = _merged_readers(model, plan, trained)
    others = {} if others is None else others
    merged |= {key: partial(others.__getitem__, key) for key in others if key not in merged}
    objects, dropped = model.checkpoint.without(model.object_graph)
    if objects is not None:
        merged[OBJECT_GRAPH_KEY] = partial(np.array, objects, object)
    kept = {key: partial(model.checkpoint.read, key) for key in model.checkpoint.shapes if key not in dropped}
    try:
        copy_files(source, target, variables=False)
        (target / "saved_model.pb").write_bytes(content)
        if keras_metadata is not None:
            (target / KERAS_METADATA).write_bytes(keras_metadata)
        _write_checkpoint(LazyArrays(kept | merged), target)
        write_fingerprint(target)
    except (OSError, tf.errors.OpError) as error:
        raise OutputError(f"{target} cannot be written: {str(error).splitlines()[0]}.") from error


def _write_checkpoint(arrays: LazyArrays, target: Path) -> None:
    """Write the checkpoint of a SavedModel; where a value is not what it should be, nothing of the model is left."""
    (target / "variables").mkdir(exist_ok=True)
    try:
        write_checkpoint(arrays, str(target / VARIABLES_PREFIX))
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelReadError(f"{path} cannot be read: {error.strerror}.") from error


def _merged_readers(
    model: SavedModel, plan: FreezePlan, trained: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Callable[[], npt.NDArray[Any]]]:
    """Checkpoint key -> what makes the effective value, for every variable that is targeted or trained."""
    paths = {variable.object_path for variable in model.variables}
    unknown = sorted(set(trained) - paths)
    if unknown:
        raise DataError(f"The model has no variable at object path {unknown[0]!r}. It has: {', '.join(sorted(paths))}.")
    for_sessions = session_keys(model)
    merged: dict[str, Callable[[], npt.NDArray[Any]]] = {}
    parts: dict[str, list[tuple[Stored, Variable]]] = {}
    for node, variable in model.variables_by_node.items():
        path = variable.object_path
        if plan.find(path) is not None or path in trained:
            place = model.graph_variables[node].stored if not model.has_objects else None
            if place is not None and place.part:
                parts.setdefault(place.key, []).append((place, variable))
                continue
            for key in {model.key_of_node[node], *for_sessions.get(node, ())}:
                merged[key] = partial(_effective, model, variable, plan, trained)
    merged |= {key: partial(_joined, model, key, slices, plan, trained) for key, slices in parts.items()}
    return merged


def _joined(
    model: SavedModel,
    key: str,
    slices: Sequence[tuple[Stored, Variable]],
    plan: FreezePlan,
    trained: Mapping[str, npt.NDArray[Any]],
) -> npt.NDArray[Any]:
    """The value of a partitioned variable of TensorFlow 1, as one: its savers restore slices of that, too."""
    whole = model.checkpoint.read(key).copy()
    for place, variable in slices:
        whole[place.index] = _effective(model, variable, plan, trained)
    return whole


def _effective(
    model: SavedModel, variable: Variable, plan: FreezePlan, trained: Mapping[str, npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """The trained value of a variable, with its frozen elements."""
    path = variable.object_path
    value = trained[path] if path in trained else model.read(variable)
    if value.shape != variable.shape or value.dtype.name != (
        "object" if variable.dtype == "string" else variable.dtype
    ):
        raise DataError(
            f"The trained value of {variable.name} ({path}) has shape {value.shape} and dtype {value.dtype.name}; "
            f"expected {variable.shape} and {variable.dtype}."
        )
    frozen = plan.find(path)
    if frozen is None:
        return value
    effective = np.where(frozen.full_mask, value, frozen.value)
    if plan.only_in and effective.tobytes() != value.tobytes():
        raise UsageError(
            f"The freeze is limited to {', '.join(plan.only_in)}, and {variable.name} ({path}) holds other "
            "values than the frozen ones, which the other endpoints take. A plain model has one value for each "
            "element: keep the rewritten model, or rewrite without a limit."
        )
    return effective
