"""The stored values of variables as what they are frozen at: found in the checkpoint, and known by their checksums."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
from tensorflow.core.protobuf import tensor_bundle_pb2

from graphfreeze.errors import ArtifactReadError, ModelReadError
from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex, read_index, shard_file
from graphfreeze.savedmodel.checksums import checksum_in_file
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.variable import Variable

__all__ = ["check_stored", "own_entry", "read_unchanged"]


def own_entry(
    model: SavedModel, index: CheckpointIndex, variable: Variable
) -> tensor_bundle_pb2.BundleEntryProto | None:
    """Where the value of a variable lies in the checkpoint, if it lies there in one piece.

    Args:
        model: The model.
        index: The index of its checkpoint.
        variable: One of its variables.
    """
    key = model.key_of_node.get(model.node_id(variable))
    entry = None if key is None else index.entries.get(key.encode())
    whole = entry is not None and not len(entry.slices) and entry.size == variable.nbytes and entry.size
    return entry if whole else None


def read_unchanged(model: SavedModel, variable: Variable, checksum: int) -> npt.NDArray[Any]:
    """The value of a variable, which has to be the one that it was frozen at.

    Args:
        model: The original, or the graph of the original with the checkpoint of the rewritten model.
        variable: The variable.
        checksum: The CRC-32C of the value that it was frozen at, as the index of a checkpoint has it.

    Raises:
        ArtifactReadError: It is another value.
        ModelReadError: It cannot be read, or is corrupt.
    """
    entry = own_entry(model, read_index(model.checkpoint.prefix), variable)
    if entry is None or entry.crc32c != checksum:
        raise ArtifactReadError(
            f"{model.checkpoint.prefix} has another value of {variable.name} than the one that it was frozen at: "
            "somebody saved over the checkpoint. Give the model as it was; a trained state goes into a place of its own"
        )
    return model.read(variable)


def check_stored(model: SavedModel, variable: Variable) -> None:
    """Compare the checksum of a value that lies in the checkpoint in one piece, without reading it as a tensor.

    Raises:
        ModelReadError: The value cannot be read, or is corrupt.
    """
    index = read_index(model.checkpoint.prefix)
    entry = own_entry(model, index, variable)
    assert entry is not None
    shard = shard_file(model.checkpoint.prefix, entry.shard_id, index.header.num_shards)
    try:
        found = checksum_in_file(shard, entry.offset, entry.size)
    except OSError as error:
        raise ModelReadError(f"{shard} cannot be read: {error.strerror}.") from error
    if found != entry.crc32c:
        raise ModelReadError(
            f"{shard} is corrupt: the value of {variable.name} has the checksum {found:#010x}, expected "
            f"{entry.crc32c:#010x}. Export the model again."
        )
