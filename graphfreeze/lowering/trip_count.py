"""How many iterations a While makes, where that is known before it starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.shapes import numpy_dtype
from graphfreeze.lowering.tensor import Dim, Tensor
from graphfreeze.lowering.trips_by_sizes import trips_by_sizes
from graphfreeze.training.graph import Graph

__all__ = ["trip_count"]

_LONGEST = 100_000
_CHUNK = 1024


def trip_count(node: Node, unchanged: set[int], steps: dict[int, int]) -> Dim | None:
    """How many iterations the loop makes; None where data decide, or where there may be none for some sizes.

    Raises:
        CannotLower: There are more than anyone can mean.
    """
    cond, inputs = node.operation.bodies["cond"], node.inputs
    live = _live_inputs(cond)
    if all(index in steps or index in unchanged for index in live):
        if all(inputs[index].constant is not None for index in live):
            trips = _fixed(cond, live, inputs, steps)
            return None if trips is None else node.lowering.dim(trips)
        return trips_by_sizes(node.lowering, cond, inputs, unchanged, steps)
    return None


def _fixed(cond: Graph, live: Sequence[int], inputs: Sequence[Tensor], steps: Mapping[int, int]) -> int | None:
    """How many iterations a loop makes whose condition depends on nothing but counters and constants."""
    for first in range(0, _LONGEST, _CHUNK):
        numbers = np.arange(first, first + _CHUNK)
        columns: dict[int, npt.NDArray[Any]] = {}
        for index in live:
            start = np.asarray(inputs[index].constant)
            columns[index] = (start + steps[index] * numbers).astype(start.dtype) if index in steps else start
        goes_on = _evaluate(cond, columns)
        if goes_on is None:
            return None
        stops = np.flatnonzero(~np.broadcast_to(goes_on, numbers.shape))
        if stops.size:
            return first + int(stops[0])
    raise CannotLower(f"it makes more than {_LONGEST} iterations")


def _live_inputs(graph: Graph) -> list[int]:
    needed = {id(edge) for edge in graph.outputs}
    for operation in reversed(graph.operations):
        if any(id(edge) in needed for edge in operation.outputs):
            needed.update(id(edge) for edge in operation.inputs)
    return [index for index, edge in enumerate(graph.inputs) if id(edge) in needed]


_NUMPY: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "AddV2": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "FloorDiv": np.floor_divide,
    "FloorMod": np.mod,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Less": np.less,
    "LessEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterEqual": np.greater_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
    "LogicalAnd": np.logical_and,
    "LogicalOr": np.logical_or,
    "LogicalNot": np.logical_not,
    "Identity": np.asarray,
}


def _evaluate(cond: Graph, columns: Mapping[int, npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """The condition at many iterations at once: scalars become columns. None where it does more than arithmetic."""
    arrays: dict[int, npt.NDArray[Any]] = {id(cond.inputs[index]): column for index, column in columns.items()}
    for operation in cond.operations:
        if operation.type == "Const":
            arrays[id(operation.outputs[0])] = tensor_util.MakeNdarray(operation.attributes["value"].tensor)
        elif all(id(edge) in arrays for edge in operation.inputs):
            given = [arrays[id(edge)] for edge in operation.inputs]
            if operation.type == "Cast":
                arrays[id(operation.outputs[0])] = given[0].astype(numpy_dtype(operation.outputs[0].dtype))
            elif operation.type in _NUMPY:
                arrays[id(operation.outputs[0])] = _NUMPY[operation.type](*given)
    return arrays.get(id(cond.outputs[0]))
