"""Blocks in snappy's format, in which the index of a checkpoint may be compressed."""

from __future__ import annotations

__all__ = ["uncompressed"]

LITERAL, SHORT_COPY, COPY = 0, 1, 2


def uncompressed(block: bytes) -> bytes:
    """What a block holds.

    Raises:
        ValueError: It is not in the format.
        IndexError: It ends too early.
    """
    length, position = _length(block)
    result = bytearray()
    while position < len(block):
        tag, kind = block[position], block[position] & 3
        position += 1
        if kind == LITERAL:
            count = (tag >> 2) + 1
            if count > 60:
                width = count - 60
                count = int.from_bytes(block[position : position + width], "little") + 1
                position += width
            result += block[position : position + count]
            position += count
            continue
        width = 1 if kind == SHORT_COPY else 2 if kind == COPY else 4
        back = int.from_bytes(block[position : position + width], "little")
        position += width
        count = (tag >> 2) + 1
        if kind == SHORT_COPY:
            back, count = back + (tag >> 5) * 256, (tag >> 2) % 8 + 4
        if not 0 < back <= len(result):
            raise ValueError("it repeats what is not there")
        for _ in range(count):
            result.append(result[-back])
    if position != len(block) or len(result) != length:
        raise ValueError(f"it should hold {length} bytes and holds {len(result)}")
    return bytes(result)


def _length(block: bytes) -> tuple[int, int]:
    """The length of what the block holds, and where that begins."""
    length = 0
    for position in range(5):
        length += (block[position] & 127) << 7 * position
        if block[position] < 128:
            return length, position + 1
    raise ValueError("it tells no length")
