from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfreeze.errors import SelectorError
from graphfreeze.selection.index import index_mask, parse_index
from graphfreeze.selection.scanner import Scanner

SHAPE = (4, 6)


def select(text: str, shape: tuple[int, ...] = SHAPE) -> list[int]:
    """The flat positions that the index names."""
    scanner = Scanner(text)
    mask = index_mask(parse_index(scanner), shape)
    scanner.expect_end("the end")
    return [int(position) for position in np.flatnonzero(mask)]


POSITIONS = np.arange(24).reshape(SHAPE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0, 1]", POSITIONS[0, 1]),
        ("[2]", POSITIONS[2]),
        ("[-1]", POSITIONS[-1]),
        ("[:, :3]", POSITIONS[:, :3]),
        ("[:, 0:3]", POSITIONS[:, 0:3]),
        ("[..., -1]", POSITIONS[..., -1]),
        ("[...]", POSITIONS),
        ("[..., 1, 2]", POSITIONS[..., 1, 2]),
        ("[::2, ::-1]", POSITIONS[::2, ::-1]),
        ("[4:, 0]", POSITIONS[4:, 0]),
        ("[[0, 3]]", POSITIONS[[0, 3]]),
        ("[[0,1],[0,1]]", POSITIONS[[0, 1], [0, 1]]),
        ("[[0, 1], 2]", POSITIONS[[0, 1], 2]),
        ("[[0, 1], 2:4]", POSITIONS[[0, 1], 2:4]),
        ("[[[0], [2]], [0, 5]]", POSITIONS[[[0], [2]], [0, 5]]),
        ("[ 1 , ]", POSITIONS[1,]),
        ("[[1,],]", POSITIONS[[1]]),
        ("[+1]", POSITIONS[1]),
    ],
)
def test_an_index_names_what_numpy_names(text: str, expected: npt.NDArray[np.int64]) -> None:
    assert select(text) == sorted(np.ravel(expected).tolist())


def test_an_empty_list_names_nothing() -> None:
    assert select("[[]]") == []


def test_a_scalar_is_named_by_an_ellipsis() -> None:
    assert select("[...]", ()) == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[4]", r"index 4 is out of range on axis 0, which has 4 elements \(shape \(4, 6\)\); expected -4 to 3"),
        ("[-5]", "index -5 is out of range on axis 0"),
        ("[:, 6]", "index 6 is out of range on axis 1"),
        ("[..., 6]", "index 6 is out of range on axis 1"),
        ("[:, 0:7]", "slice bound 7 is out of range on axis 1, which has 6 elements"),
        ("[-5:]", "slice bound -5 is out of range on axis 0"),
        ("[[0, 9]]", "index 9 is out of range on axis 0"),
        ("[[[0], [9]]]", "index 9 is out of range on axis 0"),
        ("[0, 0, 0]", r"the index has 3 axes, the variable has 2: its shape is \(4, 6\)"),
        ("[..., 0, 0, 0]", "the index has 3 axes, the variable has 2"),
        ("[[0, 1], [0, 1, 2]]", "integer lists of the index do not fit together"),
        ("[[[0], [1, 2]]]", "integer lists of the index do not fit together"),
        ("[..., ...]", "can hold `...` once"),
        ("[::0]", "the step of a slice cannot be 0"),
        ("[]", r"expected an integer, a slice, `...` or an integer list at column 2, found '\]'"),
        ("[0", "expected ',' at column 3, found the end"),
        ("[0 1]", "expected ',' at column 4"),
        ("[a]", "expected an integer"),
        ("[1.5]", "expected ',' at column 3"),
        ("[None]", "expected an integer"),
        ("[True]", "expected an integer"),
        ("[[0, a]]", "expected an integer or ']' at column 6"),
        ("[[0 1]]", "expected ']' at column 5"),
        ("[" + "9" * 30 + "]", "is out of range"),
        ("[" * 100, "nested more than 32 levels deep"),
    ],
)
def test_wrong_indices_are_explained(text: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        select(text)


integers = st.integers(-7, 7)
bounds = st.one_of(st.none(), integers)


@st.composite
def items(draw: st.DrawFn) -> tuple[str, Any]:
    """An item of an index, as text and as numpy takes it."""
    kind = draw(st.sampled_from(["integer", "slice", "list", "nested", "ellipsis"]))
    if kind == "integer":
        number = draw(integers)
        return str(number), number
    if kind == "slice":
        start, stop, step = draw(bounds), draw(bounds), draw(bounds.filter(lambda step: step != 0))
        text = ":".join("" if part is None else str(part) for part in (start, stop, step))
        return text, slice(start, stop, step)
    if kind == "ellipsis":
        return "...", ...
    numbers = draw(st.lists(integers, min_size=1, max_size=3))
    nested = [[number] for number in numbers] if kind == "nested" else numbers
    return str(nested), np.array(nested, np.intp)


def _slices_in_range(index: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    ellipsis = next((place for place, item in enumerate(index) if item is ...), len(index))
    for place, item in enumerate(index):
        axis = place if place < ellipsis else place - len(index)
        if isinstance(item, slice):
            size = shape[axis]
            if any(bound is not None and not -size <= bound <= size for bound in (item.start, item.stop)):
                return False
    return True


@given(st.lists(st.integers(1, 5), max_size=4).map(tuple), st.lists(items(), min_size=1, max_size=4))
def test_indices_agree_with_numpy(shape: tuple[int, ...], drawn: list[tuple[str, Any]]) -> None:
    text = "[" + ", ".join(item for item, _ in drawn) + "]"
    index = tuple(item for _, item in drawn)
    positions = np.arange(int(np.prod(shape))).reshape(shape)
    try:
        expected = sorted(set(np.ravel(positions[index]).tolist()))
        # numpy clips slices; a selector that is out of range is a mistake.
        fits = _slices_in_range(index, shape)
    except IndexError:
        fits = False
    if fits:
        assert select(text, shape) == expected
    else:
        with pytest.raises(SelectorError):
            select(text, shape)
