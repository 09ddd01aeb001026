"""The data contract: arrays from a file, checked against what the artifact's batches hold."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.manifest import BatchEntry
from graphfreeze.errors import DataError
from graphfreeze.selection.bool_bytes import odd_bool
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["DataSource", "Dataset", "check_range", "describe_entries", "load_data"]

DataSource = str | Path | Mapping[str, npt.ArrayLike]
"""An `.npz`, a directory of `.npy` files, or the arrays themselves."""

_EXPECTED = "Expected an .npz with one array per input and y, or a directory of .npy files."


@dataclass(frozen=True)
class Dataset:
    """Arrays that fit the batch entries.

    Attributes:
        entries: What a batch holds.
        arrays: The arrays as found; `batch` casts.
        examples: How many examples there are.
        fixed_batch_size: The only batch size that the graphs take, or None where they take any.
        casts: Which arrays are cast, for the report (`y: float64 -> float32`).
    """

    entries: tuple[BatchEntry, ...]
    arrays: Mapping[str, npt.NDArray[Any]]
    examples: int
    fixed_batch_size: int | None
    casts: tuple[str, ...]

    def batch(self, indices: npt.NDArray[np.intp] | slice) -> dict[str, npt.NDArray[Any]]:
        """The examples at these places, cast to the dtypes of the entries; may share memory with `arrays`."""
        whole = self.fixed_batch_size is None
        return {
            entry.name: np.asarray(
                self.arrays[entry.name] if whole and not entry.per_example else self.arrays[entry.name][indices],
                dtype=numpy_dtype(entry.dtype),
                order="C",
            )
            for entry in self.entries
        }


def load_data(source: DataSource, entries: Sequence[BatchEntry]) -> Dataset:
    """Read arrays and check them against the contract.

    An array whose entry starts with a named size has one row per example. Where no entry does, the graphs were made for
    one batch size, and every array still has one row per example. An array whose entry alone has no named size is the
    same for every batch.

    Args:
        source: An `.npz`, a directory of `.npy` (a key with slashes is a path in it), or a mapping. No pickles.
        entries: What a batch holds, from the manifest.

    Raises:
        DataError: Something cannot be read, is missing, is one too many, or does not fit; the message says what is
            expected.
    """
    entries = tuple(entries)
    found = {name: np.asarray(a) for name, a in source.items()} if isinstance(source, Mapping) else _read(Path(source))
    _check_keys(found, entries)
    arrays = {entry.name: _with_rank(found[entry.name], entry) for entry in entries}
    fixed = (
        None if any(entry.per_example for entry in entries) else next((e.shape[0] for e in entries if e.shape), None)
    )
    fixed_batch_size = fixed if isinstance(fixed, int) else None
    sizes: dict[str, tuple[int, str]] = {}
    for entry in entries:
        _check_shape(arrays[entry.name], entry, sizes, free_rows=fixed_batch_size is not None)
    casts = tuple(cast for entry in entries if (cast := _check_dtype(arrays[entry.name], entry)))
    for entry in entries:
        check_range(arrays[entry.name], entry)
    rows = {e.name: len(arrays[e.name]) for e in entries if e.per_example or (fixed_batch_size and e.shape)}
    if len(set(rows.values())) > 1:
        raise DataError(f"Every array needs one row per example, found {_list(rows)} rows. {describe_entries(entries)}")
    examples = next(iter(rows.values()), 0)
    if examples == 0:
        raise DataError(f"The data holds no examples. {describe_entries(entries)}")
    return Dataset(entries, arrays, examples, fixed_batch_size, casts)


def describe_entries(entries: Sequence[BatchEntry]) -> str:
    """A sentence that says what the data must hold."""
    return "Expected: " + ", ".join(f"{e.name} {e.dtype}{_shape(e.shape)}" for e in entries) + "."


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.is_dir():
        files = sorted(path.rglob("*.npy"))
        return {file.relative_to(path).as_posix().removesuffix(".npy"): _load_npy(file) for file in files}
    if not path.exists():
        raise DataError(f"The data {path} does not exist. {_EXPECTED}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"The data {path} is not an .npz. {_EXPECTED}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _load_npy(path: Path) -> npt.NDArray[Any]:
    try:
        # Mapped, so that data larger than memory can be trained on.
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error
    return array


def _unreadable(path: Path, error: Exception) -> DataError:
    # numpy says "allow_pickle" where a file holds objects, and of a mapped one that it holds Python objects.
    pickled = any(hint in str(error) for hint in ("allow_pickle", "Python objects"))
    hint = "Pickled objects are never loaded: save plain arrays of numbers." if pickled else _EXPECTED
    return DataError(f"{path} cannot be read: {str(error).rstrip('.')}. {hint}")


def _check_keys(arrays: Mapping[str, npt.NDArray[Any]], entries: Sequence[BatchEntry]) -> None:
    expected = {entry.name for entry in entries}
    for names, what in ((expected - set(arrays), "lacks"), (set(arrays) - expected, "has the unexpected")):
        if names:
            raise DataError(f"The data {what} {', '.join(sorted(names))}. {describe_entries(entries)}")


def _check_shape(
    array: npt.NDArray[Any], entry: BatchEntry, sizes: dict[str, tuple[int, str]], *, free_rows: bool
) -> None:
    wrong = DataError(
        f"{entry.name} has the shape {_shape(array.shape)}, expected {_shape(entry.shape)}"
        + (" with any number of rows." if free_rows and entry.shape else ".")
    )
    if array.ndim != len(entry.shape):
        raise wrong
    for axis, (found, expected) in enumerate(zip(array.shape, entry.shape, strict=True)):
        if isinstance(expected, int):
            if found != expected and not (free_rows and axis == 0):
                raise wrong
        elif (known := sizes.setdefault(expected, (found, entry.name)))[0] != found:
            raise DataError(
                f"{expected!r} is {known[0]} in {known[1]} and {found} in {entry.name} ({_shape(array.shape)}, "
                f"expected {_shape(entry.shape)}). Sizes of one name must be equal."
            )


def _with_rank(array: npt.NDArray[Any], entry: BatchEntry) -> npt.NDArray[Any]:
    """The array with one more or one less axis of size 1 at its end where the entry has it so, as in Keras."""
    rank = len(entry.shape)
    if array.ndim == rank + 1 and array.shape[-1] == 1:
        return array.reshape(array.shape[:-1])
    if array.ndim == rank - 1 > 0 and entry.shape[-1] == 1:
        return array.reshape((*array.shape, 1))
    return array


def check_range(array: npt.NDArray[Any], entry: BatchEntry) -> None:
    """Refuse what is no row and no class.

    Raises:
        DataError: A number is below 0, or too large.
    """
    if entry.below is None or not array.size:
        return
    # A negative number is a large one without its sign: one pass finds both.
    plain = array.dtype.kind == "i" and array.flags.c_contiguous
    if plain and int(array.view(f"u{array.dtype.itemsize}").max()) < entry.below:
        return
    least, most = array.min(), array.max()
    if not 0 <= least <= most < entry.below:
        odd = least if least < 0 else most
        raise DataError(f"{entry.name} holds {odd}, expected numbers from 0 to {entry.below - 1}: they index.")


def _check_dtype(array: npt.NDArray[Any], entry: BatchEntry) -> str | None:
    """Refuse a dtype that would not survive the cast; the cast that is needed, in words, or None."""
    expected = numpy_dtype(entry.dtype)
    found = array.dtype
    if (odd := odd_bool(array)) is not None:
        raise DataError(
            f"{entry.name} holds the byte {odd}, expected bools, each a byte that is 0 or 1. Save the array again."
        )
    if found == expected:
        return None
    if found.kind == "V":
        raise DataError(
            f"{entry.name} holds {found.name}: numpy's files do not know every dtype, bfloat16 for one. Save it as "
            f"float32; it becomes {expected.name} here."
        )
    if not _castable(array, expected):
        raise DataError(
            f"{entry.name} holds {found.name}, expected {expected.name}, and its numbers do not survive the cast. "
            f"Convert it with .astype({expected.name!r}) if that is what you mean."
        )
    return f"{entry.name}: {found.name} -> {expected.name}"


def _castable(array: npt.NDArray[Any], expected: np.dtype[Any]) -> bool:
    """Floats may lose precision; integers and booleans must keep their numbers, and so must whole floats."""
    if array.dtype.kind not in "biuf" or not array.size:
        return array.dtype.kind in "biuf"
    floating = expected.kind == "f" or expected.name == "bfloat16"
    if array.dtype.kind == "f" and (floating or expected.kind not in "iu" or not (array == np.rint(array)).all()):
        return floating
    if expected.kind in "iu":
        limits = np.iinfo(expected)
        return bool(int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    return floating and bool((array.astype(expected).astype(array.dtype) == array).all())


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"


def _list(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in rows.items())
