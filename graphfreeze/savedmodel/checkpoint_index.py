"""The index of a checkpoint, read without TensorFlow's reader, which aborts the process where an entry is absurd.

An index is a table of sorted keys (LevelDB's format): blocks of rows that share prefixes of their keys with the row
before, an index of these blocks, and a footer that says where it lies. Under the empty key there is a header, under
every other one the entry of a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2

from graphfreeze.errors import ModelReadError, UnsupportedError
from graphfreeze.savedmodel.snappy import decompress

__all__ = ["CheckpointIndex", "read_index", "shard_file"]

_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_FOOTER_SIZE = 48
_TRAILER_SIZE = 5
_PLAIN, _SNAPPY = 0, 1
_MAX_RANK = 254
# What all keys together may take. Rows that share prefixes can ask for far more than the file's size.
_MAX_KEY_BYTES = 1 << 28


class _CorruptError(Exception):
    """The reason why an index is no index."""


@dataclass
class CheckpointIndex:
    """An index as a value.

    Attributes:
        header: How many shards there are, and in which byte order.
        entries: Key -> where the tensor lies, with shape and dtype. The parts of a partitioned tensor have keys of
            their own, which are no text.
    """

    header: tensor_bundle_pb2.BundleHeaderProto
    entries: dict[bytes, tensor_bundle_pb2.BundleEntryProto]


def read_index(prefix: str) -> CheckpointIndex:
    """Read and check the index of a checkpoint. The checksums are left to TensorFlow's reader.

    Args:
        prefix: The path that the index and all shards begin with.

    Raises:
        ModelReadError: It cannot be read, is corrupt, or an entry does not fit its shard.
        UnsupportedError: A machine of the other byte order wrote it.
    """
    file = Path(f"{prefix}.index")
    try:
        index = _parse(file.read_bytes())
        if index.header.endianness != tensor_bundle_pb2.BundleHeaderProto.LITTLE:
            raise UnsupportedError(
                f"{file} says that its tensors have their most significant byte first, as a big-endian machine writes "
                "them, which is not supported. Load the model with tf.saved_model.load, and save it again with "
                "tf.saved_model.save, on a machine such as this one."
            )
        return _check(index, prefix)
    except OSError as error:
        raise ModelReadError(f"{file} cannot be read: {error.strerror}.") from error
    except (_CorruptError, DecodeError) as error:
        reason = str(error) if isinstance(error, _CorruptError) else "a row of it is no entry"
        raise ModelReadError(f"{file} cannot be read: {reason}. Export the model again.") from error


def shard_file(prefix: str, number: int, count: int) -> Path:
    """The file of a shard of a checkpoint that has `count` of them."""
    return Path(f"{prefix}.data-{number:05}-of-{count:05}")


def _parse(content: bytes) -> CheckpointIndex:
    if len(content) < _FOOTER_SIZE or not content.endswith(_MAGIC):
        raise _CorruptError("it is truncated, or no checkpoint index")
    footer = len(content) - _FOOTER_SIZE
    _, position = _handle(content, footer)
    index, _ = _handle(content, position)
    rows: dict[bytes, bytes] = {}
    end = key_bytes = 0
    for _, handle in _rows(_block(content, *index)):
        (start, size), _ = _handle(handle, 0)
        if start < end:
            raise _CorruptError("its blocks overlap")
        end = start + size
        for key, value in _rows(_block(content, start, size)):
            rows[key] = value
            key_bytes += len(key)
            if key_bytes > _MAX_KEY_BYTES:
                raise _CorruptError(f"its keys take more than {_MAX_KEY_BYTES} bytes")
    if b"" not in rows:
        raise _CorruptError("it has no header")
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(rows.pop(b""))
    entries = {key: tensor_bundle_pb2.BundleEntryProto.FromString(value) for key, value in rows.items()}
    return CheckpointIndex(header, entries)


def _block(content: bytes, start: int, size: int) -> bytes:
    """The rows of a block, without its list of restarts."""
    end = start + size
    if end + _TRAILER_SIZE > len(content) or size < 4:
        raise _CorruptError("a block of it lies outside the file")
    if content[end] not in (_PLAIN, _SNAPPY):
        raise _CorruptError(f"a block of it is compressed in an unknown way, number {content[end]}")
    block = content[start:end]
    if content[end] == _SNAPPY:
        try:
            block = decompress(block)
        except ValueError as error:
            raise _CorruptError(str(error)) from error
    restarts = 4 * (int.from_bytes(block[-4:], "little") + 1)
    if restarts > len(block):
        raise _CorruptError("a block of it has more restarts than room")
    return block[: len(block) - restarts]


def _rows(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    key, position = b"", 0
    while position < len(block):
        shared, position = _varint(block, position)
        own, position = _varint(block, position)
        size, position = _varint(block, position)
        if shared > len(key) or position + own + size > len(block):
            raise _CorruptError("a row of it lies outside its block")
        key = key[:shared] + block[position : position + own]
        position += own + size
        yield key, block[position - size : position]


def _handle(content: bytes, position: int) -> tuple[tuple[int, int], int]:
    """Start and size of a block, and the position behind them."""
    start, position = _varint(content, position)
    size, position = _varint(content, position)
    return (start, size), position


def _varint(content: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            break
        byte = content[position]
        number |= (byte & 127) << shift
        position += 1
        if byte < 128:
            return number, position
    raise _CorruptError("a number in it does not end")


# -- whether the entries fit the shards


def _check(index: CheckpointIndex, prefix: str) -> CheckpointIndex:
    count = index.header.num_shards
    if count < 1:
        raise _CorruptError(f"it speaks of {count} shards")
    sizes = [_size(shard_file(prefix, shard, count)) for shard in range(count)]
    for key, entry in index.entries.items():
        problem = _problem(entry, sizes)
        if problem:
            raise _CorruptError(f"its entry {key.decode(errors='replace')!r} {problem}")
    return index


def _size(shard: Path) -> int:
    try:
        return shard.stat().st_size
    except OSError as error:
        raise ModelReadError(f"{shard} cannot be read: {error.strerror}. Copy or export the model again.") from error


def _problem(entry: tensor_bundle_pb2.BundleEntryProto, sizes: list[int]) -> str:
    """What is wrong with an entry; empty where nothing is."""
    if entry.dtype not in types_pb2.DataType.values() or entry.dtype == types_pb2.DT_INVALID:
        return f"has dtype {entry.dtype}, which does not exist"
    dims = [int(dim.size) for dim in entry.shape.dim]
    elements = math.prod(max(size, 1) for size in dims)
    if entry.shape.unknown_rank or len(dims) > _MAX_RANK or min(dims, default=0) < 0 or elements >= 2**62:
        return f"has an impossible shape, {dims if len(dims) < 9 else f'of rank {len(dims)}'}"
    if not 0 <= entry.shard_id < len(sizes):
        return f"lies in shard {entry.shard_id} of {len(sizes)}"
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > sizes[entry.shard_id]:
        return f"lies outside its shard: {entry.size} bytes from {entry.offset} on, of {sizes[entry.shard_id]}"
    least = (0 if 0 in dims else elements) * _element_size(entry.dtype)
    if entry.slices:
        inside = all(_fits(part, dims) for part in entry.slices)
        return "" if inside and least <= sum(sizes) else f"has parts that do not make up its shape {dims}"
    if entry.size < least or (_is_plain(entry.dtype) and entry.size > least):
        return f"takes {entry.size} bytes, which is not what its shape {dims} needs"
    return ""


def _fits(part: Any, dims: list[int]) -> bool:
    """Whether a part of a partitioned tensor lies in it. An extent without a length is a whole axis."""
    return len(part.extent) == len(dims) and all(
        extent.start >= 0 and extent.length >= 0 and extent.start + extent.length <= size
        for extent, size in zip(part.extent, dims, strict=True)
    )


def _is_plain(dtype: int) -> bool:
    return bool(tf.as_dtype(dtype).is_numpy_compatible) and dtype not in (
        types_pb2.DT_STRING,
        types_pb2.DT_VARIANT,
        types_pb2.DT_RESOURCE,
    )


def _element_size(dtype: int) -> int:
    """How many bytes an element takes at least."""
    return int(tf.as_dtype(dtype).size) if _is_plain(dtype) else 1
