"""The frozen elements of a value, whole or in pieces, against numpy's own boolean indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfreeze.selection import masks
from graphfreeze.selection.masks import frozen_only, frozen_pieces, same_bytes


@st.composite
def values_and_masks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(st.lists(st.integers(1, 5), max_size=4).map(tuple))
    small = tuple(size if draw(st.booleans()) else 1 for size in shape)
    count = int(np.prod(small))
    mask = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool).reshape(small)
    return np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape), mask


@pytest.mark.parametrize("elements", [1, 3, 16, 1 << 20])
@given(values_and_masks())
def test_pieces(elements: int, drawn: tuple[np.ndarray, np.ndarray]) -> None:
    value, mask = drawn
    expected = value[~np.broadcast_to(mask, value.shape)]
    np.testing.assert_array_equal(frozen_only(value, mask), expected, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_PIECE_ELEMENTS", elements)
        pieces = list(frozen_pieces(value, mask))
    np.testing.assert_array_equal(np.concatenate(pieces), expected, strict=True)
    assert all(piece.size <= max(elements, value.shape[-1] if value.ndim else 1) for piece in pieces)


@given(
    st.lists(st.lists(st.integers(0, 255), max_size=9), max_size=6),
    st.lists(st.integers(1, 20), max_size=5),
    st.integers(-1, 60),
)
def test_same_bytes(left: list[list[int]], cuts: list[int], changed: int) -> None:
    whole = np.array([byte for piece in left for byte in piece], np.uint8)
    other = whole.copy()
    if 0 <= changed < len(other):
        other[changed] ^= 1
    right = np.split(other, np.cumsum(cuts)) if cuts else [other]
    pieces = [np.array(piece, np.uint8) for piece in left]
    same = not 0 <= changed < len(other)
    assert same_bytes(pieces, right) == same
    assert not same_bytes(pieces, [*right, np.zeros(1, np.uint8)])
    assert not same_bytes([*pieces, np.zeros((1, 1), np.int64)], right)
