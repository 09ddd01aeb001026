"""Folding: the original graph again, with the trained and the frozen values merged in its checkpoint."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.errors import DataError, ModelReadError, OutputError, UsageError
from graphfreeze.passes.write import copy_files, write_fingerprint
from graphfreeze.savedmodel.checkpoint import OBJECT_GRAPH_KEY, Checkpoint
from graphfreeze.savedmodel.files import VARIABLES_PREFIX, parse_saved_model
from graphfreeze.savedmodel.keras_metadata import KERAS_METADATA
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.session_keys import session_keys
from graphfreeze.selection.plan import FreezePlan

__all__ = ["fold"]


def fold(
    original: bytes | str | os.PathLike[str],
    rewritten: str | os.PathLike[str],
    plan: FreezePlan,
    trained: Mapping[str, npt.NDArray[Any]],
    destination: str | os.PathLike[str],
    *,
    keras_metadata: bytes | None = None,
) -> None:
    """Write a plain SavedModel whose weights are the effective values of a trained, rewritten one.

    Its `saved_model.pb` is the original's, byte for byte. Of a targeted variable, trainable elements are the trained
    ones and frozen elements the plan's; the trained array's own frozen elements, which weight decay may have moved, do
    not count. Values that are not in `trained` are the checkpoint's. Session loaders, which restore some exports from
    keys of their own, see the same values.

    Args:
        original: The original `saved_model.pb`, as bytes or as a path.
        rewritten: The rewritten SavedModel's directory, whose checkpoint and assets are taken.
        plan: The freeze plan.
        trained: Object path -> value, of the variable's shape and dtype.
        destination: Where to; it must not exist, or be empty.
        keras_metadata: The original `keras_metadata.pb`, of a Keras 2 save.

    Raises:
        UsageError: The freeze is limited to some endpoints, and the others take other values.
        DataError: `trained` names a variable that the model lacks, or a value has the wrong shape or dtype.
        ModelReadError: The original or the checkpoint cannot be read.
        OutputError: The destination holds something, or cannot be written.
    """
    content = original if isinstance(original, bytes) else _read(Path(original))
    source, target = Path(rewritten), Path(destination)
    model = SavedModel(parse_saved_model(content, "the original saved_model.pb"), source)
    merged = _merge(model, plan, trained)
    try:
        copy_files(source, target, variables=False)
        (target / "saved_model.pb").write_bytes(content)
        if keras_metadata is not None:
            (target / KERAS_METADATA).write_bytes(keras_metadata)
        (target / "variables").mkdir(exist_ok=True)
        objects, dropped = model.checkpoint.without(model.object_graph)
        if objects is not None:
            merged[OBJECT_GRAPH_KEY] = np.array(objects, object)
        _write_checkpoint(model.checkpoint, merged, str(target / VARIABLES_PREFIX), dropped)
        write_fingerprint(target)
    except (OSError, tf.errors.OpError) as error:
        raise OutputError(f"{target} cannot be written: {str(error).splitlines()[0]}.") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelReadError(f"{path} cannot be read: {error.strerror}.") from error


def _merge(model: SavedModel, plan: FreezePlan, trained: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Checkpoint key -> effective value, for every variable that is targeted or trained."""
    nodes = {variable.object_path: node for node, variable in model.variables_by_node.items()}
    unknown = sorted(set(trained) - set(nodes))
    if unknown:
        raise DataError(f"The model has no variable at object path {unknown[0]!r}. It has: {', '.join(sorted(nodes))}.")
    for_sessions = session_keys(model)
    merged: dict[str, npt.NDArray[Any]] = {}
    for path, node in nodes.items():
        frozen = plan.find(path)
        if frozen is None and path not in trained:
            continue
        variable = model.variables_by_node[node]
        value = trained[path] if path in trained else model.read(variable)
        if value.shape != variable.shape or value.dtype.name != variable.dtype:
            raise DataError(
                f"The trained value of {variable.name} ({path}) has shape {value.shape} and dtype {value.dtype.name}; "
                f"expected {variable.shape} and {variable.dtype}."
            )
        if frozen is not None:
            effective = np.where(frozen.full_mask, value, frozen.value)
            if plan.only_in and effective.tobytes() != value.tobytes():
                raise UsageError(
                    f"The freeze is limited to {', '.join(plan.only_in)}, and {variable.name} ({path}) holds other "
                    "values than the frozen ones, which the other endpoints take. A plain model has one value for each "
                    "element: keep the rewritten model, or rewrite without a limit."
                )
            value = effective
        for key in {model.key_of_node[node], *for_sessions.get(node, ())}:
            merged[key] = value
    return merged


def _write_checkpoint(
    checkpoint: Checkpoint, merged: Mapping[str, npt.NDArray[Any]], prefix: str, dropped: Container[str]
) -> None:
    """Write the keys of a checkpoint in the order of their names, some with new values, as one shard."""
    keys = [key for key in checkpoint.shapes if key not in dropped]
    with tf.device("CPU:0"):
        values = [tf.constant(merged[key] if key in merged else checkpoint.read(key)) for key in keys]
        tf.raw_ops.SaveV2(prefix=prefix, tensor_names=keys, shape_and_slices=[""] * len(keys), tensors=values)
