"""Whether two files hold the same bytes: read when they are whole, or stretch by stretch while one is written."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

__all__ = ["CopiesBeingWritten", "first_difference"]

BLOCK = 1 << 18
STRETCH = 1 << 26
THREADS = min(8, os.cpu_count() or 1)


def first_difference(left: Path, right: Path) -> int | None:
    """The offset of the first differing byte, or None. Hard links need no reading."""
    if left.samefile(right):
        return None
    size = left.stat().st_size
    if size != right.stat().st_size:
        return min(size, right.stat().st_size)
    with left.open("rb", buffering=0) as a, right.open("rb", buffering=0) as b, ThreadPoolExecutor(THREADS) as pool:
        differences = pool.map(
            lambda start: _difference_between(a.fileno(), b.fileno(), start, min(start + STRETCH, size)),
            range(0, size, STRETCH),
        )
        try:
            return next((offset for offset in differences if offset is not None), None)
        finally:
            pool.shutdown(cancel_futures=True)


class CopiesBeingWritten:
    """Compares copies with their originals beside the writing, where their bytes are still in the processor's caches.

    Nothing is taken from what writes but how far it is. Leaving the context ends the comparisons.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._copies: dict[tuple[int, int], _Copy] = {}

    def __enter__(self) -> CopiesBeingWritten:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for copy in self._copies.values():
            os.close(copy.original)
            os.close(copy.file)

    def written(self, original: str, copy: str, end: int) -> None:
        """Say that so many bytes from the start of a copy are written, and will not be written again.

        Raises:
            OSError: One of the files cannot be read.
        """
        identity = _identity(Path(copy).stat())
        if identity not in self._copies:
            # The copy may have another name by the time that it is compared.
            self._copies[identity] = _Copy(os.open(original, os.O_RDONLY), os.open(copy, os.O_RDONLY))
        self._pool.submit(self._copies[identity].compare_until, end)

    def first_difference(self, left: Path, right: Path) -> int | None:
        """The same as `first_difference`. Reads both files unless they were compared, and not written to since."""
        self._pool.submit(lambda: None).result()
        copy = self._copies.get(_identity(right.stat()))
        if copy is None or not copy.holds(left.stat(), right.stat()):
            return first_difference(left, right)
        return copy.difference


@dataclass
class _Copy:
    """An open copy and its original, which have the same bytes up to `end`, or else a first difference.

    Attributes:
        before: What was known of the copy's file just before its last bytes were read.
    """

    original: int
    file: int
    end: int = 0
    difference: int | None = None
    before: os.stat_result | None = None

    def compare_until(self, end: int) -> None:
        """Compare further bytes."""
        self.before = os.fstat(self.file)
        if self.difference is None:
            self.difference = _difference_between(self.original, self.file, self.end, end)
        self.end = end

    def holds(self, original: os.stat_result, copy: os.stat_result) -> bool:
        """Whether what was found is true of two files: all of them was compared, and neither is another one by now."""
        return (
            self.before is not None
            and os.path.samestat(original, os.fstat(self.original))
            and self.end == original.st_size == copy.st_size == self.before.st_size
            and copy.st_mtime_ns == self.before.st_mtime_ns
        )


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _difference_between(left: int, right: int, start: int, end: int) -> int | None:
    """The offset of the first differing byte of a stretch of two open files, or None."""
    # Reading into the same memory again and again spares the system from handing out cleared pages.
    blocks = np.empty((2, max(0, min(BLOCK, end - start))), np.uint8)
    for offset in range(start, end, BLOCK):
        size = min(BLOCK, end - offset)
        a, b = blocks[0, :size], blocks[1, :size]
        read = min(os.preadv(left, [a.data], offset), os.preadv(right, [b.data], offset))
        if not np.array_equal(a[:read], b[:read]):
            return offset + int(np.flatnonzero(a[:read] != b[:read])[0])
        if read < size:
            return offset + read
    return None
