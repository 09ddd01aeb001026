"""Copies of files: within the kernel, and those that are sure to be needed while something else is at work."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType

__all__ = ["CopiesAhead", "Written", "copy_file", "link_or_copy"]

Written = Callable[[str, str, int], object]
"""Takes a file, its copy, and how many bytes of the copy are there and will not be written again."""

# After each of these a copy can be given up, and what is there be read while it is in the processor's caches.
_STRETCH = 1 << 23
# Smaller files are copied in no time.
_WORTHWHILE = 1 << 24


def copy_file(source: str, target: str, stop: Event | None = None, written: Written | None = None) -> None:
    """Copy a file's content. Where the file system can, both share it until one of them is changed.

    Args:
        source: The file, or a symbolic link to it.
        target: The copy.
        stop: Once set, the copy may end before it is whole.
        written: Called from time to time.

    Raises:
        OSError: It cannot be read or written.
    """
    if not _copy_in_kernel(source, target, stop, written) and not (stop is not None and stop.is_set()):
        shutil.copyfile(source, target)


def link_or_copy(source: str, target: str) -> None:
    """Make a hard link, or a copy where the file system has none.

    Raises:
        OSError: It cannot be read or written.
    """
    try:
        # A link to what the name stands for, should it be a symbolic link.
        os.link(os.path.realpath(source), target)
    except OSError:
        copy_file(source, target)


class CopiesAhead:
    """Copies of large files, made by another thread: that needs the kernel only.

    Leaving the context ends the thread and removes what nothing took.

    Args:
        files: What will be copied.
        directory: Where to keep the copies until then; it is made, on the file system that they are to be on.
        written: Called while copies are written.
    """

    def __init__(self, files: Iterable[Path], directory: Path, written: Written | None = None) -> None:
        self._directory = directory
        self._stop = Event()
        self._pool = ThreadPoolExecutor(1)
        self._copies: dict[str, tuple[str, Future[None]]] = {}
        for file in files:
            if file.is_file() and file.stat().st_size >= _WORTHWHILE:
                directory.mkdir(exist_ok=True)
                copy = str(directory / str(len(self._copies)))
                self._copies[str(file)] = copy, self._pool.submit(copy_file, str(file), copy, self._stop, written)

    def __enter__(self) -> CopiesAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def take(self, source: str, target: str) -> None:
        """Copy a file, or move the copy that was made of it.

        Raises:
            OSError: It cannot be read or written.
        """
        if source not in self._copies:
            copy_file(source, target)
            return
        copy, done = self._copies.pop(source)
        done.result()
        Path(copy).replace(target)


def _copy_in_kernel(source: str, target: str, stop: Event | None, written: Written | None) -> bool:
    """Copy without the bytes passing through this process; returns whether all of them were copied."""
    if not hasattr(os, "copy_file_range"):
        return False
    with Path(source).open("rb") as old, Path(target).open("wb") as new:
        size = left = os.fstat(old.fileno()).st_size
        while left and not (stop is not None and stop.is_set()):
            try:
                copied = os.copy_file_range(old.fileno(), new.fileno(), min(left, _STRETCH))
            except OSError:
                # Not every pair of file systems can. If it is about the disk, so will be the error of the other way.
                return False
            if not copied:
                return False
            left -= copied
            if written is not None:
                written(source, target, size - left)
    return not left
