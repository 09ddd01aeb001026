"""What a While does with each of its variables, as far as its graphs show it, and how often it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.shapes import numpy_dtype
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["counters", "invariants", "origin", "trip_count"]

_LONGEST = 100_000
_CHUNK = 1024
_PASSING = frozenset({"Identity", "StopGradient", "PreventGradient"})


def invariants(operation: Operation) -> set[int]:
    """The variables that the loop passes through unchanged."""
    body = operation.bodies["body"]
    return {index for index, edge in enumerate(body.outputs) if origin(edge) is body.inputs[index]}


def origin(edge: Edge) -> Edge:
    """The edge behind operations, and inner loops, that pass it through."""
    while (producer := edge.producer) is not None:
        if producer.type in _PASSING:
            edge = producer.inputs[0]
            continue
        if "body" in producer.bodies:
            index = next(index for index, output in enumerate(producer.outputs) if output is edge)
            if index in invariants(producer):
                edge = producer.inputs[index]
                continue
        break
    return edge


def counters(operation: Operation, inputs: Sequence[Tensor]) -> dict[int, int]:
    """The integer variables that start at a known number and grow by a known step at every iteration."""
    body = operation.bodies["body"]
    unchanged = invariants(operation)
    steps: dict[int, int] = {}
    for index, (edge, tensor) in enumerate(zip(body.outputs, inputs, strict=True)):
        start, producer = tensor.constant, origin(edge).producer
        if start is None or start.shape != () or start.dtype.kind != "i" or producer is None:
            continue
        if producer.type not in ("Add", "AddV2", "Sub"):
            continue
        left, right = (origin(edge) for edge in producer.inputs)
        if producer.type != "Sub" and right is body.inputs[index]:
            left, right = right, left
        step = _known(right, body, unchanged, inputs)
        if left is body.inputs[index] and step is not None and step.shape == ():
            steps[index] = -int(step) if producer.type == "Sub" else int(step)
    return steps


def _known(edge: Edge, body: Graph, unchanged: set[int], inputs: Sequence[Tensor]) -> npt.NDArray[Any] | None:
    if edge.producer is not None:
        constant = edge.producer.type == "Const"
        return tensor_util.MakeNdarray(edge.producer.attributes["value"].tensor) if constant else None
    index = next((index for index, argument in enumerate(body.inputs) if argument is edge), None)
    return inputs[index].constant if index is not None and index in unchanged else None


def trip_count(
    operation: Operation, inputs: Sequence[Tensor], unchanged: set[int], steps: Mapping[int, int]
) -> int | None:
    """How many iterations the loop makes; None where data or the batch size decide.

    Raises:
        CannotLower: There are more than anyone can mean.
    """
    cond = operation.bodies["cond"]
    live = _live_inputs(cond)
    if not all(index in steps or (index in unchanged and inputs[index].constant is not None) for index in live):
        return None
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
