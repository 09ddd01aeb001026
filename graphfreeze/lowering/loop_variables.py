"""What a While does with each of its variables, as far as its graphs show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.sizes import Sizes
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["counters", "invariants", "origin"]

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


def counters(operation: Operation, inputs: Sequence[Tensor], sizes: Sizes) -> dict[int, int]:
    """The integer variables that start at a known number, or a size, and grow by a known step at every iteration."""
    body = operation.bodies["body"]
    unchanged = invariants(operation)
    steps: dict[int, int] = {}
    for index, (edge, tensor) in enumerate(zip(body.outputs, inputs, strict=True)):
        start, producer = tensor.number, origin(edge).producer
        if start is None or producer is None or not sizes.follows(start):
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
