"""Checkpoint indexes with entries of one's choice, checksums included: what no honest program writes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tensorflow.core.protobuf import tensor_bundle_pb2

__all__ = ["masked_crc", "varint", "write_index"]

_MAGIC = 0xDB4775248B80FB57


@cache
def _table() -> tuple[int, ...]:
    """Of crc32c, whose polynomial is Castagnoli's, for one byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def masked_crc(content: bytes) -> int:
    """The crc32c of bytes, rotated and shifted as TensorFlow's files have it."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def write_index(
    file: Path,
    entries: Mapping[str, tensor_bundle_pb2.BundleEntryProto] | Mapping[bytes, tensor_bundle_pb2.BundleEntryProto],
    shards: int = 1,
    *,
    big_endian: bool = False,
    compress: Callable[[bytes], bytes] | None = None,
) -> None:
    """Write a checkpoint's index: a table with a header under the empty key, and an entry for each name.

    `compress` compresses the block of entries in snappy's format.
    """
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=shards, endianness=int(big_endian), version={"producer": 1})
    named = {key if isinstance(key, bytes) else key.encode(): entry for key, entry in entries.items()}
    rows = {b"": header.SerializeToString()} | {key: entry.SerializeToString() for key, entry in named.items()}
    data = _block(dict(sorted(rows.items())), compress)
    meta = _block({})
    handles = varint(0) + varint(len(data) - 5), varint(len(data)) + varint(len(meta) - 5)
    index = _block({max(rows) + b"\xff": handles[0]})
    footer = handles[1] + varint(len(data) + len(meta)) + varint(len(index) - 5)
    file.write_bytes(data + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC))


def _block(rows: Mapping[bytes, bytes], compress: Callable[[bytes], bytes] | None = None) -> bytes:
    """A block whose keys share no prefixes, with its trailer."""
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in rows.items())
    content = body + struct.pack("<II", 0, 1)
    content = compress(content) + b"\1" if compress else content + b"\0"
    return content + struct.pack("<I", masked_crc(content))


def varint(number: int) -> bytes:
    """A number in as many bytes as it needs, seven bits each, the lowest first."""
    content = b""
    while number >= 128:
        content += bytes([number & 127 | 128])
        number >>= 7
    return content + bytes([number])
