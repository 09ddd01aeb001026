"""Batches that are checked once: a training step of a small model takes less time than the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.data import check_range, load_data
from graphfreeze.artifact.manifest import BatchEntry
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["BatchCheck"]

_Layout = tuple[tuple[str, tuple[int, ...], np.dtype[Any]], ...]


class BatchCheck:
    """Makes a batch of what the caller gives, as `load_data` does.

    Args:
        entries: What a batch holds, from the manifest.
    """

    def __init__(self, entries: Sequence[BatchEntry]) -> None:
        self._entries = entries
        self._dtypes = {entry.name: numpy_dtype(entry.dtype) for entry in entries}
        self._indices = [entry for entry in entries if entry.below is not None]
        self._good: set[_Layout] = set()

    def __call__(self, batch: Mapping[str, npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
        """The arrays with the dtypes of the entries, in row-major order; may share memory with those given.

        Raises:
            DataError: The arrays do not fit.
        """
        arrays = {name: array for name, array in batch.items() if isinstance(array, np.ndarray)}
        layout = tuple((name, array.shape, array.dtype) for name, array in arrays.items())
        ordered = len(arrays) == len(batch) and all(array.flags.c_contiguous for array in arrays.values())
        if ordered and layout in self._good:
            for entry in self._indices:
                check_range(arrays[entry.name], entry)
            return arrays
        checked = load_data(batch, self._entries).batch(slice(None))
        # Beside these, names, shapes and dtypes are all that is checked. Where nothing had to be cast or reshaped, the
        # same need no other check.
        if ordered and all(
            (array.dtype, array.shape) == (self._dtypes[name], checked[name].shape) for name, array in arrays.items()
        ):
            self._good.add(layout)
        return checked
