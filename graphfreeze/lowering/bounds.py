"""Numbers that are known although what they are computed from is not: min(c, max(d, x)) is c where d >= c."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Edge, Operation

__all__ = ["bounded"]


def bounded(operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The output of a Minimum of a number and of what is at least that number, otherwise None."""
    if operation.type != "Minimum":
        return None
    for (edge, other), tensor in zip((operation.inputs, operation.inputs[::-1]), inputs, strict=True):
        upper, lower = _number(edge), _lower_bound(other)
        if upper is not None and lower is not None and lower >= upper:
            return [tensor]
    return None


def _lower_bound(edge: Edge) -> npt.NDArray[Any] | None:
    if edge.producer is None or edge.producer.type != "Maximum":
        return None
    return next((number for number in map(_number, edge.producer.inputs) if number is not None), None)


def _number(edge: Edge) -> npt.NDArray[Any] | None:
    if edge.producer is None or edge.producer.type != "Const":
        return None
    array: npt.NDArray[Any] = tensor_util.MakeNdarray(edge.producer.attributes["value"].tensor)
    return array if array.ndim == 0 else None
