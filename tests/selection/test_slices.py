from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.selection.masks import smallest_broadcastable
from graphfreeze.selection.slices import TrainedSlices, fewest_trained_slices, find_trained_slices, trained_along

SHAPE = (8, 6, 4)


def mask(*frozen: Any) -> npt.NDArray[np.bool_]:
    """A mask that is false at some indices, as a plan holds it."""
    made = np.ones(SHAPE, np.bool_)
    for index in frozen:
        made[index] = False
    return smallest_broadcastable(made)


EVERYTHING = slice(None)


@pytest.mark.parametrize(
    ("given", "axis", "indices"),
    [
        (mask((0,)), 0, [1, 2, 3, 4, 5, 6, 7]),
        (mask((EVERYTHING, [0, 2, 4])), 1, [1, 3, 5]),
        (mask((..., slice(1, 4))), 2, [0]),
        # Of three quarters of one axis and five eighths of another, the former.
        (mask((slice(0, 5),), (..., slice(1, 4))), 2, [0]),
        (mask((slice(0, 7),), (..., slice(1, 4))), 0, [7]),
        # A quarter, and elements of others.
        (mask((slice(0, 2),), (3, 2, 1)), 0, [2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_slices_that_train(given: npt.NDArray[np.bool_], axis: int, indices: list[int]) -> None:
    found = find_trained_slices(given)
    assert found is not None
    assert (found.axis, found.size, found.indices.tolist()) == (axis, SHAPE[axis], indices)


@pytest.mark.parametrize(
    "given", [mask(), mask((1, 2, 3)), mask((slice(0, 7), slice(0, 5), slice(0, 3))), np.zeros((1, 1, 1), np.bool_)]
)
def test_no_whole_slice_is_frozen_or_all_are(given: npt.NDArray[np.bool_]) -> None:
    assert fewest_trained_slices(given) is None
    assert find_trained_slices(given) is None


def test_few_slices_among_scattered_elements_stay() -> None:
    given = mask((0,), (3, 2, 1))
    assert fewest_trained_slices(given) is not None
    assert find_trained_slices(given) is None
    assert trained_along(given, 1) is None


@pytest.mark.parametrize("indices", [[0], [2, 3], [0, 5], [1, 2, 4], [0, 2, 4]])
def test_cut_and_put(indices: list[int]) -> None:
    slices = TrainedSlices(1, 6, np.array(indices))
    value = np.random.default_rng(0).normal(size=SHAPE)
    kept = slices.cut(value)
    assert len(slices) == len(indices) and kept.shape == slices.shape(SHAPE) == (8, len(indices), 4)
    np.testing.assert_array_equal(kept, value[:, indices])
    whole = slices.put(kept, np.zeros(SHAPE))
    np.testing.assert_array_equal(whole[:, indices], value[:, indices])
    assert not whole[:, slices.frozen].any()
    assert sorted([*indices, *slices.frozen.tolist()]) == list(range(6))
    # Where they lie along another axis, and what broadcasts along theirs.
    np.testing.assert_array_equal(slices.cut(value.transpose(1, 0, 2), 0), kept.transpose(1, 0, 2))
    np.testing.assert_array_equal(slices.put(kept.transpose(1, 0, 2), np.zeros((6, 8, 4)), 0), whole.transpose(1, 0, 2))
    assert slices.cut(value[:, :1]).shape == (8, 1, 4)
    covered = [index for trains, start, stop in slices.runs for index in range(start, stop) if trains]
    assert covered == indices
    assert [start for _, start, _ in slices.runs][1:] == [stop for _, _, stop in slices.runs][:-1]
