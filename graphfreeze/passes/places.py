"""Values at places in bodies, and what may become of them."""

from __future__ import annotations

from dataclasses import dataclass

from graphfreeze.passes.directions import Direction
from graphfreeze.savedmodel.handle_flow import Context

__all__ = ["NOWHERE", "UNKNOWN_ROWS", "AnyEnd", "End", "Norm", "Place", "Returned"]

UNKNOWN_ROWS = "?"
"""Stands for the indices of rows that are not known."""
NOWHERE = -1
"""Where a body returns indices that it does not return."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A node that sums up the elements of a value, whole or along some axes, in one of `SUMS`.

    Attributes:
        context: The body.
        node: Its position.
        rows: The tensor with the indices of the rows that the value consists of; None where it is whole.
    """

    context: Context
    node: int
    rows: str | None = None


End = int | Norm | Direction
"""Where a value ends: in the update of a variable, by its object node, in a norm, a direction, or `ELSEWHERE`."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value at one place in a body.

    Attributes:
        tensor: The tensor; or a node's name, for all that it yields.
        count: How many rows the variable has, or None where that does not matter.
        rows: The tensor with the indices of the rows that it consists of; None where it is all of a variable.
        is_test: Whether it is only the answer to whether there is a zero.
    """

    tensor: str
    count: int | None
    rows: str | None = None
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """A value that a body returns, and where it returns the indices of its rows, if these are not all."""

    position: int
    indices: int | None
    count: int | None
    is_test: bool


AnyEnd = End | Returned
"""The same of a value that may also leave its body."""
