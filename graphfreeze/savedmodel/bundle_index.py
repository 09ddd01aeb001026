"""The index of a checkpoint (`variables.index`): which tensor lies where in which shard.

It is a sorted table of LevelDB's kind: blocks of key and value, each followed by its compression (none) and a checksum,
then a block that names the last key of each, then a footer. The empty key is the header; any other key is a tensor. The
shards are nothing but the tensors' bytes, so that a checkpoint is extended by a new index and one more shard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2

from graphfreeze.errors import ModelReadError

__all__ = ["BundleIndex", "masked_crc32c"]

_FOOTER_SIZE = 48
_MAGIC = 0xDB4775248B80FB57
_BLOCK_SIZE = 1 << 18
_HEADER_KEY = b""


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def masked_crc32c(content: bytes) -> int:
    """The CRC-32C of some bytes, masked as LevelDB does it, so that checksums of checksums stay good ones."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass
class BundleIndex:
    """An index as a value.

    Attributes:
        header: How many shards there are, and in which byte order.
        entries: Key -> where its tensor lies; a slice of a partitioned tensor has a binary key.
    """

    header: Any
    entries: dict[bytes, Any]

    @classmethod
    def read(cls, path: Path) -> BundleIndex:
        """Read an index file.

        Raises:
            ModelReadError: It is missing, corrupt, or compressed.
        """
        try:
            table = dict(_table(path.read_bytes()))
            header = tensor_bundle_pb2.BundleHeaderProto.FromString(table.pop(_HEADER_KEY))
            entries = {key: tensor_bundle_pb2.BundleEntryProto.FromString(value) for key, value in table.items()}
        except OSError as error:
            raise ModelReadError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, KeyError, IndexError, struct.error, DecodeError) as error:
            raise ModelReadError(
                f"{path} is not a readable checkpoint index: {error}. Export the model again."
            ) from error
        return cls(header, entries)

    def write(self, path: Path) -> None:
        """Write the index; equal values give equal bytes.

        Raises:
            OSError: It cannot be written.
        """
        values = {key: entry.SerializeToString(deterministic=True) for key, entry in self.entries.items()}
        path.write_bytes(_serialise({_HEADER_KEY: self.header.SerializeToString(deterministic=True), **values}))


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = content[-_FOOTER_SIZE:]
    if len(footer) < _FOOTER_SIZE or struct.unpack("<Q", footer[40:])[0] != _MAGIC:
        raise ValueError("it does not end as one")
    position = 0
    numbers = []
    for _ in range(4):
        number, position = _read_varint(footer, position)
        numbers.append(number)
    for _, handle in _block(content, numbers[2], numbers[3]):
        offset, position = _read_varint(handle, 0)
        size, _ = _read_varint(handle, position)
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block, trailer = content[offset : offset + size], content[offset + size : offset + size + 5]
    if len(block) < size or len(trailer) < 5:
        raise ValueError("a block lies outside of the file")
    if trailer[0] != 0:
        raise ValueError(f"its blocks are compressed (kind {trailer[0]})")
    if struct.unpack("<I", trailer[1:])[0] != masked_crc32c(block + trailer[:1]):
        raise ValueError("the checksum of a block is wrong")
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    position, key = 0, b""
    while position < end:
        shared, position = _read_varint(block, position)
        fresh, position = _read_varint(block, position)
        length, position = _read_varint(block, position)
        key = key[:shared] + block[position : position + fresh]
        position += fresh
        yield key, block[position : position + length]
        position += length


def _serialise(table: Mapping[bytes, bytes]) -> bytes:
    content, handles = bytearray(), []

    def append(block: bytes) -> bytes:
        handle = _varint(len(content)) + _varint(len(block))
        content.extend(block + b"\0" + struct.pack("<I", masked_crc32c(block + b"\0")))
        return handle

    group: list[tuple[bytes, bytes]] = []
    size = 0
    for key in sorted(table):
        group.append((key, table[key]))
        size += len(key) + len(table[key])
        if size >= _BLOCK_SIZE:
            handles.append((key, append(_make_block(group))))
            group, size = [], 0
    if group:
        handles.append((group[-1][0], append(_make_block(group))))
    footer = append(_make_block([])) + append(_make_block(handles))
    return bytes(content) + footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)


def _make_block(items: list[tuple[bytes, bytes]]) -> bytes:
    """A block without shared prefixes: every entry is a restart point, so that it can be found by bisection."""
    block, restarts = bytearray(), []
    for key, value in items:
        restarts.append(len(block))
        block.extend(_varint(0) + _varint(len(key)) + _varint(len(value)) + key + value)
    restarts = restarts or [0]
    return bytes(block) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = content[position]
        position += 1
        result |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return result, position
        if shift > 63:
            raise ValueError("a number has no end")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
