"""Decompression of snappy's raw format, with which some builds of TensorFlow compress a checkpoint's index."""

from __future__ import annotations

__all__ = ["decompress"]

# A copy of 64 bytes takes 3 bytes: no honest stream grows by more than this factor.
_MAX_GROWTH = 64


def decompress(content: bytes) -> bytes:
    """Decompress a whole stream.

    Raises:
        ValueError: It is corrupt, or claims to hold more than it can.
    """
    size, position = _size(content)
    if size > _MAX_GROWTH * len(content):
        raise ValueError("a compressed block claims an impossible size")
    result = bytearray()
    while position < len(content) and len(result) <= size:
        tag = content[position]
        position += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                # The length itself follows, in 1 to 4 bytes.
                width = length - 59
                length = int.from_bytes(content[position : position + width], "little")
                position += width
            result += content[position : position + length + 1]
            position += length + 1
            continue
        width = (0, 1, 2, 4)[tag & 3]
        offset = int.from_bytes(content[position : position + width], "little")
        position += width
        if tag & 3 == 1:
            offset |= tag >> 5 << 8
        _repeat(result, offset, 4 + (tag >> 2 & 7) if tag & 3 == 1 else 1 + (tag >> 2))
    if position != len(content) or len(result) != size:
        raise ValueError("a compressed block does not end where it should")
    return bytes(result)


def _size(content: bytes) -> tuple[int, int]:
    """The size that the stream claims to hold, and the position behind it."""
    size = 0
    for position, byte in enumerate(content[:5]):
        size |= (byte & 127) << 7 * position
        if byte < 128:
            return size, position + 1
    raise ValueError("a compressed block has no size")


def _repeat(result: bytearray, offset: int, length: int) -> None:
    """Append what stands `offset` bytes before the end; it may reach into what is being appended."""
    if not 0 < offset <= len(result):
        raise ValueError("a compressed block refers to what is before its start")
    pattern = bytes(result[len(result) - offset : len(result) - offset + length])
    result += (pattern * (length // len(pattern) + 1))[:length]
