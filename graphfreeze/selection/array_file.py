"""Arrays that a selector takes from a file: `mask.npy`, or `masks.npz[key]`. Pickles are never loaded."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError
from graphfreeze.selection.bool_bytes import odd_bool
from graphfreeze.selection.nearest import suggest

__all__ = ["ArrayFile", "parse_array_file", "read_array"]

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A reference to an array in a file.

    Attributes:
        path: The path as written.
        key: The name of the array in an `.npz`; None for an `.npy`.
    """

    path: str
    key: str | None = None

    @property
    def label(self) -> str:
        """The reference without the file's directory, which says nothing on another machine."""
        name = re.split(r"[/\\]", self.path)[-1]
        return name if self.key is None else f"{name}[{self.key}]"


def parse_array_file(text: str) -> ArrayFile | None:
    """The reference that the text spells, or None where it is none."""
    text = text.strip()
    if text.endswith(".npy"):
        return ArrayFile(text)
    archive, _, key = text.rpartition("[")
    if text.endswith("]") and archive.rstrip().endswith(".npz"):
        return ArrayFile(archive.rstrip(), key[:-1].strip())
    return None


def read_array(file: ArrayFile, directory: Path | None, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Read the array, which must have the shape.

    Args:
        file: The reference.
        directory: What a relative path starts from; None is the current directory.
        shape: The expected shape. It is compared before any data is read.

    Raises:
        SelectorError: The file is missing, is no such file, holds a pickle, or the shape differs.
    """
    path = (directory or Path()) / file.path
    try:
        with _open(file, path) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise SelectorError(f"{file.label}: version {version} of the .npy format is not an array of numbers")
            found, _, dtype = _HEADERS[version](stream)
        if dtype.hasobject:
            raise SelectorError(
                f"{file.label} holds Python objects (a pickle), which are never loaded; save a plain array"
            )
        if found != shape:
            raise SelectorError(f"{file.label} has shape {found}, the variable has shape {shape}: they must be equal")
        with _open(file, path) as stream:
            array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise SelectorError(f"there is no file {path}") from None
    except _UNREADABLE as error:
        raise SelectorError(f"{path} is not a readable {path.suffix} file: {error}") from None
    if (odd := odd_bool(array)) is not None:
        raise SelectorError(
            f"{file.label} holds the byte {odd}, expected bools, each a byte that is 0 or 1; save the array again"
        )
    return array


@contextmanager
def _open(file: ArrayFile, path: Path) -> Iterator[IO[bytes]]:
    if file.key is None:
        with path.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist()]
        if file.key not in keys:
            raise SelectorError(f"{path.name} has no array {file.key!r}; {suggest(file.key, keys)}")
        with archive.open(archive.namelist()[keys.index(file.key)]) as stream:
            yield stream
