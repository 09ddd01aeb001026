"""Writing a checkpoint a few tensors at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex, read_index, shard_file
from graphfreeze.savedmodel.checkpoint_index_writer import write_index

__all__ = ["write_checkpoint"]

# What is in memory at a time, where no single tensor is larger.
_PART_BYTES = 1 << 24
_BUFFER_BYTES = 1 << 22


def write_checkpoint(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> None:
    """Write a checkpoint of one shard, in the order of its keys.

    TensorFlow writes a part of the tensors at a time, with their checksums; the parts' bytes one after the other are
    the shard.

    Args:
        arrays: Key -> value; each is asked for once, and released after it is written.
        prefix: The path that index and shard begin with; the folder exists.

    Raises:
        OSError: It cannot be written.
        tensorflow.errors.OpError: TensorFlow cannot write it.
    """
    shard = shard_file(prefix, 0, 1)
    part = f"{prefix}_part"
    whole = CheckpointIndex(tensor_bundle_pb2.BundleHeaderProto(num_shards=1, version={"producer": 1}), {})
    shard.write_bytes(b"")
    for tensors in _parts(arrays):
        with tf.device("CPU:0"):
            tf.raw_ops.SaveV2(
                prefix=part, tensor_names=[*tensors], shape_and_slices=[""] * len(tensors), tensors=[*tensors.values()]
            )
        tensors.clear()
        index = read_index(part)
        offset = shard.stat().st_size
        for entry in index.entries.values():
            entry.offset += offset
        whole.entries |= index.entries
        whole.header = index.header
        _append(shard_file(part, 0, 1), shard)
        Path(f"{part}.index").unlink()
    write_index(whole, prefix)


def _parts(arrays: Mapping[str, npt.NDArray[Any]]) -> Iterable[dict[str, Any]]:
    """The tensors by key, grouped; a group that was taken is emptied by whoever took it."""
    part: dict[str, Any] = {}
    size = 0
    for key in sorted(arrays):
        array = arrays[key]
        size += array.nbytes
        with tf.device("CPU:0"):
            part[key] = tf.constant(array)
        del array
        if size >= _PART_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part


def _append(source: Path, target: Path) -> None:
    """Move the bytes of a file to the end of another one."""
    if not target.stat().st_size:
        source.replace(target)
        return
    with source.open("rb") as part, target.open("ab") as whole:
        shutil.copyfileobj(part, whole, _BUFFER_BYTES)
    source.unlink()
