"""Writing the index of a checkpoint: a table of LevelDB's kind, without compression and without shared prefixes.

The shards are nothing but the tensors' bytes, so that a checkpoint is extended by a new index and one more shard.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex
from graphfreeze.savedmodel.checksums import checksum

__all__ = ["write_index"]

_MAGIC = 0xDB4775248B80FB57
_BLOCK_SIZE = 1 << 18
_HEADER_KEY = b""


def write_index(index: CheckpointIndex, prefix: str) -> None:
    """Write an index; equal values give equal bytes.

    Args:
        index: What to write.
        prefix: The path that the index and all shards begin with.

    Raises:
        OSError: It cannot be written.
    """
    values = {key: entry.SerializeToString(deterministic=True) for key, entry in index.entries.items()}
    header = index.header.SerializeToString(deterministic=True)
    Path(f"{prefix}.index").write_bytes(_serialise({_HEADER_KEY: header, **values}))


def _serialise(table: Mapping[bytes, bytes]) -> bytes:
    content, handles = bytearray(), []

    def append(block: bytes) -> bytes:
        handle = _varint(len(content)) + _varint(len(block))
        content.extend(block + b"\0" + struct.pack("<I", checksum(block + b"\0")))
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


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append((number & 0x7F) | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
