"""INDEX: numpy's basic indexing and integer lists, with every position checked against the shape."""

from __future__ import annotations

import re
from types import EllipsisType

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError
from graphfreeze.selection.scanner import Scanner

__all__ = ["Index", "IntegerList", "index_mask", "parse_index"]

IntegerList = list["int | IntegerList"]
Index = tuple[int | slice | EllipsisType | IntegerList, ...]

_INTEGER = re.compile(r"[+-]?[0-9]+")
# No axis is longer than what 18 digits count.
_MAX_DIGITS = 18


def parse_index(scanner: Scanner) -> Index:
    """Read an INDEX, from its `[` to the matching `]`.

    Raises:
        SelectorError: The text is not an index of integers, slices, `...` and integer lists.
    """
    scanner.expect("[")
    items = [_parse_item(scanner)]
    closed = scanner.accept("]")
    while not closed:
        scanner.expect(",")
        closed = scanner.accept("]")
        if not closed:
            items.append(_parse_item(scanner))
            closed = scanner.accept("]")
    if sum(item is Ellipsis for item in items) > 1:
        raise SelectorError("an index can hold `...` once")
    return tuple(items)


def broadcastable_index_mask(index: Index, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The same as `index_mask`, with size 1 along each axis that the index takes as a whole.

    Raises:
        SelectorError: The index does not fit the shape.
    """
    _check_range(index, shape)
    taken = len(index) - (... in index)
    place = index.index(...) if ... in index else len(index)
    whole = [slice(None)] * (len(shape) - taken)
    items = [*index[:place], *whole, *index[place + 1 :]]
    return index_mask(index, tuple(1 if item == slice(None) else n for item, n in zip(items, shape, strict=True)))


def index_mask(index: Index, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The elements that the index names, as a bool array of the shape.

    Raises:
        SelectorError: The index has more axes than the shape, a position is out of range (in a slice too), or
            its integer lists do not broadcast against each other.
    """
    _check_range(index, shape)
    mask = np.zeros(shape, np.bool_)
    try:
        mask[tuple(np.array(item, np.intp) if isinstance(item, list) else item for item in index)] = True
    except (IndexError, ValueError) as error:
        raise SelectorError(f"the integer lists of the index do not fit together: {error}") from None
    return mask


def _parse_item(scanner: Scanner) -> int | slice | EllipsisType | IntegerList:
    if scanner.accept("..."):
        return ...
    if scanner.accept("["):
        return _parse_list(scanner)
    start = _parse_integer(scanner)
    if not scanner.accept(":"):
        if start is None:
            scanner.fail("an integer, a slice, `...` or an integer list")
        return start
    stop = _parse_integer(scanner)
    step = _parse_integer(scanner) if scanner.accept(":") else None
    if step == 0:
        raise SelectorError("the step of a slice cannot be 0")
    return slice(start, stop, step)


def _parse_list(scanner: Scanner) -> IntegerList:
    """Read an integer list behind its `[`; it may be nested, as in `[[[0], [1]], [0, 2]]`."""
    items: IntegerList = []
    with scanner.nested():
        while not scanner.accept("]"):
            if scanner.accept("["):
                items.append(_parse_list(scanner))
            else:
                integer = _parse_integer(scanner)
                if integer is None:
                    scanner.fail("an integer or ']'")
                items.append(integer)
            if not scanner.accept(","):
                scanner.expect("]")
                break
    return items


def _parse_integer(scanner: Scanner) -> int | None:
    text = scanner.match(_INTEGER)
    if text is not None and len(text) > _MAX_DIGITS:
        raise SelectorError(f"the index {text[:_MAX_DIGITS]}... is out of range")
    return None if text is None else int(text)


def _check_range(index: Index, shape: tuple[int, ...]) -> None:
    axes = sum(item is not Ellipsis for item in index)
    if axes > len(shape):
        raise SelectorError(f"the index has {axes} axes, the variable has {len(shape)}: its shape is {shape}")
    ellipsis = index.index(...) if ... in index else len(index)
    for place, item in enumerate(index):
        axis = place if place < ellipsis else len(shape) - len(index) + place
        if item is Ellipsis:
            continue
        size = shape[axis]
        if isinstance(item, slice):
            positions = [bound for bound in (item.start, item.stop) if bound is not None]
            highest = size
        else:
            positions = _flatten(item) if isinstance(item, list) else [item]
            highest = size - 1
        wrong = next((position for position in positions if not -size <= position <= highest), None)
        if wrong is not None:
            kind = "slice bound" if isinstance(item, slice) else "index"
            raise SelectorError(
                f"{kind} {wrong} is out of range on axis {axis}, which has {size} elements (shape {shape}); "
                f"expected {-size} to {highest}"
            )


def _flatten(items: IntegerList) -> list[int]:
    return [number for item in items for number in (_flatten(item) if isinstance(item, list) else [item])]
