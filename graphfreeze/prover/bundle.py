"""Where the tensors of a checkpoint lie in its shards, read from its index (a LevelDB table)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import tensor_bundle_pb2, trackable_object_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.snappy import uncompressed

__all__ = ["OBJECT_GRAPH", "Bundle", "read_bundle"]

OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"
MAGIC = bytes.fromhex("57fb808b247547db")
PLAIN, SNAPPY = 0, 1


@dataclass(frozen=True)
class Bundle:
    """A checkpoint's index.

    Attributes:
        prefix: The path that its files begin with.
        header: Its header.
        entries: Key -> entry.
    """

    prefix: Path
    header: Any
    entries: dict[bytes, Any]

    def shard(self, number: int) -> Path:
        """The file of a shard."""
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05}-of-{self.header.num_shards:05}")

    def objects(self) -> Any:
        """The object graph that was saved with the values."""
        entry = self.entries[OBJECT_GRAPH]
        with self.shard(entry.shard_id).open("rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
        # A string: its length, the length's checksum, its bytes.
        length, start = _number(content, 0)
        return trackable_object_graph_pb2.TrackableObjectGraph.FromString(content[start + 4 : start + 4 + length])


def read_bundle(directory: Path) -> Bundle:
    """Read the index of a SavedModel's checkpoint.

    Raises:
        VerificationError: It is missing or corrupt.
    """
    prefix = directory / "variables" / "variables"
    try:
        table = dict(_table(prefix.with_name("variables.index").read_bytes()))
        header = tensor_bundle_pb2.BundleHeaderProto.FromString(table.pop(b""))
        entries = {key: tensor_bundle_pb2.BundleEntryProto.FromString(value) for key, value in table.items()}
    except Exception as error:
        # protobuf's DecodeError is a plain Exception in some implementations.
        refuse(f"expected a checkpoint index at {prefix}.index, found {type(error).__name__}: {error}")
    return Bundle(prefix, header, entries)


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-48:]
    if footer[-8:] != MAGIC:
        raise ValueError("it ends otherwise")
    position = 0
    handle = []
    for _ in range(4):
        value, position = _number(footer, position)
        handle.append(value)
    for _, inner in _block(content, handle[2], handle[3]):
        offset, position = _number(inner, 0)
        yield from _block(content, offset, _number(inner, position)[0])


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = content[offset : offset + size]
    if content[offset + size] == SNAPPY:
        block = uncompressed(block)
    elif content[offset + size] != PLAIN:
        raise ValueError("it is compressed in an unknown way")
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    position, key = 0, b""
    while position < end:
        shared, position = _number(block, position)
        fresh, position = _number(block, position)
        length, position = _number(block, position)
        key = key[:shared] + block[position : position + fresh]
        yield key, block[position + fresh : position + fresh + length]
        position += fresh + length


def _number(content: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while content[position] >= 0x80:
        result |= (content[position] & 0x7F) << shift
        shift, position = shift + 7, position + 1
    return result | content[position] << shift, position + 1
