"""Whole slices of a variable, its rows, columns or filters, that are frozen: the others are all that trains."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WORTHWHILE", "TrainedSlices", "fewest_trained_slices", "find_trained_slices", "trained_along"]

WORTHWHILE = 0.25
"""The part of the slices that must be frozen where masks remain within the others: to put the variable together costs
one pass over it, which some optimizer arithmetic must pay for."""


@dataclass(frozen=True, eq=False)
class TrainedSlices:
    """Some slices of a variable along an axis, at least one and not all: those in which anything trains.

    Attributes:
        axis: The axis, not negative.
        size: How many slices the variable has along it.
        indices: Which of them train, ascending (int64).
    """

    axis: int
    size: int
    indices: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def cut(self, value: npt.NDArray[Any], axis: int | None = None) -> npt.NDArray[Any]:
        """These slices of the whole value, whose slices lie along `axis` (by default where the variable's do).

        A value that broadcasts along the axis stays as it is.
        """
        axis = self.axis if axis is None else axis
        return value if value.shape[axis] == 1 < self.size else np.take(value, self.indices, axis=axis)

    def put(self, slices: npt.NDArray[Any], whole: npt.NDArray[Any], axis: int | None = None) -> npt.NDArray[Any]:
        """A copy of the whole value with these slices in their places."""
        made = np.array(whole)
        np.moveaxis(made, self.axis if axis is None else axis, 0)[self.indices] = np.moveaxis(
            slices, self.axis if axis is None else axis, 0
        )
        return made

    def shape(self, whole: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the slices alone, for the shape of the variable."""
        return (*whole[: self.axis], len(self), *whole[self.axis + 1 :])

    @cached_property
    def frozen(self) -> npt.NDArray[np.int64]:
        """The indices of the other slices, ascending."""
        return np.setdiff1d(np.arange(self.size), self.indices, assume_unique=True)

    @cached_property
    def runs(self) -> list[tuple[bool, int, int]]:
        """All slices from the first to the last as runs: whether they train, where they start and stop."""
        trains = np.zeros(self.size, np.bool_)
        trains[self.indices] = True
        edges = [0, *(np.flatnonzero(trains[1:] != trains[:-1]) + 1).tolist(), self.size]
        return [(bool(trains[start]), start, stop) for start, stop in pairwise(edges)]


def trained_along(mask: npt.NDArray[np.bool_], axis: int) -> TrainedSlices | None:
    """The slices along an axis in which the mask (True = trainable) is true somewhere; None where it is in all or none.

    Args:
        mask: Of the variable's rank; an axis along which it does not vary has size 1.
        axis: Which axis.
    """
    others = tuple(other for other in range(mask.ndim) if other != axis)
    trains = np.asarray(mask.any(axis=others))
    return TrainedSlices(axis, len(trains), np.flatnonzero(trains)) if trains.any() and not trains.all() else None


def fewest_trained_slices(mask: npt.NDArray[np.bool_]) -> TrainedSlices | None:
    """The slices that train, along the axis of which the largest part is frozen; None where no whole slice is.

    Args:
        mask: True = trainable; of the variable's rank, with size 1 where it does not vary.
    """
    found = [trained for axis in range(mask.ndim) if (trained := trained_along(mask, axis)) is not None]
    return min(found, key=lambda trained: len(trained) / trained.size, default=None)


def find_trained_slices(mask: npt.NDArray[np.bool_]) -> TrainedSlices | None:
    """The slices to train alone, where that is worth it (arguments as for `fewest_trained_slices`)."""
    best = fewest_trained_slices(mask)
    if best is None or best.cut(mask).all():
        return best
    return best if 1 - len(best) / best.size >= WORTHWHILE else None
