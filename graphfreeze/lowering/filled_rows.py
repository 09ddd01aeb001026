"""Sparse arrays of which no row is empty: the last number of a row is the last row's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.tensor import Dim
from graphfreeze.training.graph import Edge, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["filled_rows"]

_UNCHANGED = frozenset({"Cast", "Identity", "StopGradient"})


def filled_rows(lowering: Lowering, edge: Edge) -> Dim | None:
    """How many rows there are, where these are the numbers of all rows of a filled sparse array; else None."""
    edge = _source(edge)
    column = edge.producer
    if column is None or column.type != "StridedSlice" or not _is_first_column(column):
        return None
    filled = _source(column.inputs[0]).producer
    if filled is None or filled.type != "SparseFillEmptyRows" or _source(column.inputs[0]) is not filled.outputs[0]:
        return None
    shape = lowering.tensors[id(filled.inputs[2])].known
    return None if shape is None else tuple(int(known[0]) for known in shape)


def _source(edge: Edge) -> Edge:
    while edge.producer is not None and edge.producer.type in _UNCHANGED:
        edge = edge.producer.inputs[0]
    return edge


def _is_first_column(operation: Operation) -> bool:
    """Whether it is x[:, 0]."""
    masks = {
        name: operation.attributes[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis", "new_axis", "ellipsis")
    }
    begin = operation.inputs[1].producer
    if begin is None or begin.type != "Const" or masks["begin"] & 1 == 0 or masks["end"] & 1 == 0:
        return False
    start = tensor_util.MakeNdarray(begin.attributes["value"].tensor)
    is_column = masks["shrink_axis"] == 2 and not masks["new_axis"] and not masks["ellipsis"]
    return is_column and len(start) == 2 and start[1] == 0
