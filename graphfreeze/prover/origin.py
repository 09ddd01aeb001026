"""What a tensor's elements come from, and what is left of that behind a node that keeps elements in their places."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.frames import Frame, asked_for_zeros, distinct_of, source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs, integer_attr
from graphfreeze.prover.operations import ELEMENT_BY_ELEMENT, KEEPING
from graphfreeze.prover.static_numbers import number_of

__all__ = ["SOME_ROWS", "Origin", "through"]

SOME_ROWS = Tensor("?", "", 0)
"""Indices that nothing else has."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor's elements come from.

    Attributes:
        variable: The variable.
        rows: The indices of the rows that the tensor consists of; None where it is the whole.
        is_test: Whether the tensor only says whether an element is zero or not a number.
        height: How many rows the variable has; None where it is not known, or has none.
    """

    variable: int
    rows: Tensor | None = None
    is_test: bool = False
    height: int | None = None


def through(frame: Frame, node: node_def_pb2.NodeDef, position: int, origin: Origin) -> Origin | None:
    """The origin that a node's result has by one of an operand; None where it does not keep elements in place."""
    if node.op == "IdentityN":
        return origin
    if node.op == "Any":
        asks = origin.is_test or asked_for_zeros(frame.view, node) is not None
        return replace(origin, is_test=True) if asks and position == 0 and origin.rows is None else None
    if origin.is_test:
        return origin if node.op == "Identity" else None
    if node.op in ELEMENT_BY_ELEMENT:
        return origin
    if position != 0 or node.op not in KEEPING or len(data_inputs(node)) < 3:
        return None
    indices = source_of(frame.view, node.input[1])
    number = number_of(frame, node.input[2])
    if node.op == "GatherV2":
        plain = number == 0 and integer_attr(node, "batch_dims") == 0
        return replace(origin, rows=indices) if plain and origin.rows is None else None
    distinct = distinct_of(frame.view, indices)
    if distinct is not None and distinct.repeated == origin.rows:
        return replace(origin, rows=distinct.once)
    whole = number is not None and number == origin.height
    return replace(origin, rows=None) if whole and origin.rows == indices else None
