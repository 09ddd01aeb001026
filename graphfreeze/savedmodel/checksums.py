"""CRC-32C as checkpoints have it: of blocks of an index, and of the values in a shard."""

from __future__ import annotations

from pathlib import Path

import google_crc32c

__all__ = ["checksum", "checksum_in_file"]

_PIECE = 1 << 22


def checksum(content: bytes) -> int:
    """The CRC-32C of some bytes, masked as LevelDB does it, so that checksums of checksums stay good ones."""
    return _masked(google_crc32c.value(content))


def checksum_in_file(path: Path, offset: int, size: int) -> int:
    """The same of so many bytes of a file, or of those that are there.

    Raises:
        OSError: The file cannot be read.
    """
    crc = 0
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            crc = google_crc32c.extend(crc, piece)
            size -= len(piece)
    return _masked(crc)


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
