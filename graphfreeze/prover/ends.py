"""Where the values of a variable end, when they are followed element by element."""

from __future__ import annotations

from typing import NamedTuple

from graphfreeze.prover.graph_view import Tensor
from graphfreeze.prover.handles import Context

__all__ = ["DirectionEnd", "End", "Ends", "NormEnd", "join"]


class NormEnd(NamedTuple):
    """A node that sums up all elements of a value, or those along some axes.

    Attributes:
        context: The body.
        node: The node.
        rows: The indices of the rows that the value consists of; None where it is a whole.
    """

    context: Context
    node: str
    rows: Tensor | None = None


class DirectionEnd(NamedTuple):
    """A tensor with which a direction begins: what is computed from it is looked at as a whole.

    Attributes:
        context: The body.
        node: The node that yields the tensor.
        position: Which of its outputs it is.
    """

    context: Context
    node: str
    position: int


End = int | NormEnd | DirectionEnd
Ends = frozenset[End] | None
"""The variables in whose writes a value ends, and the sums and directions that take it; None where it ends elsewhere,
too."""


def join(a: Ends, b: Ends) -> Ends:
    """The ends of a value that has both."""
    return None if a is None or b is None else a | b
