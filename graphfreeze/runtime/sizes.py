"""Refuses what has the wrong size, before onnxruntime does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from graphfreeze.artifact.data import Dataset
from graphfreeze.errors import DataError, UsageError

__all__ = ["check_against_graph", "check_sizes"]


def check_sizes(dataset: Dataset, epochs: int, batch_size: int) -> None:
    """Refuse numbers of epochs and of examples per step that do not fit the data.

    Raises:
        UsageError: One of them is not positive.
        DataError: The model takes batches of one size, and this is another, or the examples are no multiple of it.
    """
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name} must be 1 or more, found {value}.")
    fixed = dataset.fixed_batch_size
    if fixed is not None and (batch_size != fixed or dataset.examples % fixed):
        raise DataError(
            f"The model was exported for batches of exactly {fixed}: expected a batch size of {fixed} and a "
            f"multiple of {fixed} examples, found {batch_size} and {dataset.examples} examples."
        )


def check_against_graph(name: str, array: npt.NDArray[Any], shape: Sequence[int | str | None]) -> None:
    """Refuse an array of another shape than a graph's input has; a name or None stands for any size.

    Raises:
        DataError: It has another one.
    """
    fits = array.ndim == len(shape) and all(
        not isinstance(expected, int) or found == expected for found, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise DataError(f"{name} has the shape {list(array.shape)}, expected {list(shape)}.")
