"""Further values for a checkpoint: new shards and a new index, while the old shards stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphfreeze.passes.storage import Storage, StoredConstant, StoredVariable, extended_objects, stored_paths
from graphfreeze.savedmodel.checkpoint import OBJECT_GRAPH_KEY
from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex, read_index, shard_file
from graphfreeze.savedmodel.checkpoint_index_writer import write_index
from graphfreeze.savedmodel.files import VARIABLES_PREFIX
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.own_values import own_entry
from graphfreeze.selection.dtypes import dtype_kind
from graphfreeze.selection.masks import frozen_pieces, same_bytes
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["Copy", "extend_checkpoint", "values_in_checkpoint"]

Copy = Callable[[str, str], object]
"""Copies or links a file: from where, and to where."""


def extend_checkpoint(
    model: SavedModel, plan: FreezePlan, stored: tuple[StoredVariable, ...], directory: Path, copy: Copy
) -> None:
    """Write the checkpoint of a rewritten model: the original's values, and those of the stored constants.

    One value is in memory at a time. Frozen values that are, where they are frozen, those of the checkpoint need no
    copy where they may hold anything elsewhere: the index then names the variable's own bytes for both.

    Args:
        model: The original.
        plan: What is frozen.
        stored: The further variables.
        directory: The rewritten SavedModel's directory.
        copy: Copies or links a file.

    Raises:
        ModelReadError: The original's checkpoint is corrupt.
        OSError: Something cannot be written.
    """
    source, target = model.checkpoint.prefix, str(directory / VARIABLES_PREFIX)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    index = read_index(source)
    shards = index.header.num_shards
    added: list[Path] = []

    def add(key: str, value: Any) -> None:
        """Write one more shard. TensorFlow computes its checksum."""
        temporary = str(directory / "variables" / f"graphfreeze_{len(added)}")
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(prefix=temporary, tensor_names=[key], shape_and_slices=[""], tensors=[value])
        entry = read_index(temporary).entries[key.encode()]
        entry.shard_id = shards + len(added)
        index.entries[key.encode()] = entry
        Path(f"{temporary}.index").unlink()
        added.append(shard_file(temporary, 0, 1))

    add(
        OBJECT_GRAPH_KEY,
        tf.constant(extended_objects(model.checkpoint.objects, stored).SerializeToString(deterministic=True)),
    )
    for variable in stored:
        entry = plan.find(variable.constant.object_path)
        assert entry is not None
        own = _own_entry(model, index, variable.constant, entry)
        if own is None:
            add(variable.key, variable.constant.array(entry))
        else:
            index.entries[variable.key.encode()] = own
    count = shards + len(added)
    for number in range(shards):
        copy(str(shard_file(source, number, shards)), str(shard_file(target, number, count)))
    for number, file in enumerate(added, shards):
        file.rename(shard_file(target, number, count))
    index.header.num_shards = count
    write_index(index, target)


def values_in_checkpoint(model: SavedModel, plan: FreezePlan, storage: Storage) -> dict[str, int]:
    """The variables whose frozen values the checkpoint of the rewritten model holds without a copy.

    Returns:
        Object path -> the checksum of the variable's value.

    Raises:
        ModelReadError: The original's checkpoint is corrupt.
    """
    paths = stored_paths(plan, storage) if model.has_objects else frozenset()
    found = {}
    for frozen in plan.variables:
        path = frozen.variable.object_path
        if path in paths and frozen.at_current and frozen.form == "select":
            entry = own_entry(model, read_index(model.checkpoint.prefix), frozen.variable)
            if entry is not None and dtype_kind(frozen.variable.dtype) != "complex":
                found[path] = entry.crc32c
    return found


def _own_entry(model: SavedModel, index: CheckpointIndex, constant: StoredConstant, frozen: Any) -> Any | None:
    """The index entry of the variable itself, where its bytes can stand for its frozen values."""
    if constant.role != "frozen" or frozen.form != "select":
        return None
    entry = own_entry(model, index, frozen.variable)
    if entry is None or frozen.checksum == entry.crc32c:
        return entry
    # Mapped, so that of a large variable only what is frozen is read.
    shard = shard_file(model.checkpoint.prefix, entry.shard_id, index.header.num_shards)
    whole = np.memmap(shard, numpy_dtype(constant.dtype), "r", entry.offset, constant.shape)
    return entry if same_bytes(frozen_pieces(whole, frozen.mask), frozen.frozen_pieces()) else None
