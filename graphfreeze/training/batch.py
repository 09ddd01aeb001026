"""Random batches that a model accepts: floats around zero, integers within the ranges that the graph allows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.training.endpoint import TensorEntry
from graphfreeze.training.graph import Edge, NamedGraph

__all__ = ["index_limits", "random_inputs", "required_limits", "sample_shape"]

_KEEPS_INDEX = frozenset(
    ["Add", "AddV2", "Cast", "ExpandDims", "Identity", "Maximum", "Minimum", "Reshape", "SelectV2", "Squeeze"]
)
_KEEPS_NUMBERS = frozenset(["Cast", "ExpandDims", "Identity", "Reshape", "Squeeze"])
_KEEPS_ROWS = frozenset(["Add", "AddV2", "Cast", "Identity", "Mul", "SelectV2", "StopGradient"])
_DEFAULT_LIMIT = 2
_LENGTH = 7


def random_inputs(
    entries: Sequence[TensorEntry], limits: dict[str, int], rng: np.random.Generator, batch_size: int
) -> dict[str, npt.NDArray[Any]]:
    """Inputs for an endpoint.

    Args:
        entries: The endpoint's inputs.
        limits: For inputs that are used as indices, the number of rows they may name (see `index_limits`).
        rng: Where the randomness comes from.
        batch_size: What an unknown first axis becomes.
    """
    inputs = {}
    for entry in entries:
        shape = sample_shape(entry.shape, batch_size)
        if entry.name in limits or np.dtype(entry.dtype).kind in "iu":
            values: Any = rng.integers(0, limits.get(entry.name, _DEFAULT_LIMIT), shape)
        elif entry.dtype == "bool":
            values = rng.integers(0, 2, shape)
        else:
            values = rng.normal(size=shape)
        inputs[entry.name] = np.asarray(values).astype(entry.dtype)
    return inputs


def sample_shape(shape: Sequence[int | None], batch_size: int) -> tuple[int, ...]:
    """A shape with the batch size for an unknown first axis, and a length that it is not for any other."""
    return tuple((_LENGTH if axis else batch_size) if size is None else size for axis, size in enumerate(shape))


def index_limits(named: NamedGraph) -> dict[str, int]:
    """For every graph input that ends up as indices of a gather or a one-hot: the smallest table it indexes."""
    found = []
    for operation in named.graph.operations:
        if operation.type == "GatherV2":
            found.append((operation.inputs[1], _rows(operation.inputs[0], _constant(operation.inputs[2]))))
        elif operation.type == "OneHot":
            found.append((operation.inputs[0], _constant(operation.inputs[1])))
    return _limits(named, found, _KEEPS_INDEX)


def required_limits(named: NamedGraph) -> dict[str, int]:
    """For every graph input that is itself the indices of a gather, or classes: how many there are.

    With a number that is none of these, TensorFlow stops on a CPU.
    """
    found = []
    for operation in named.graph.operations:
        if operation.type == "GatherV2":
            found.append((operation.inputs[1], _rows(operation.inputs[0], _constant(operation.inputs[2]))))
        elif operation.type == "SparseSoftmaxCrossEntropyWithLogits":
            found.append((operation.inputs[1], (operation.inputs[0].shape or (None,))[-1]))
    return _limits(named, found, _KEEPS_NUMBERS)


def _limits(named: NamedGraph, found: Sequence[tuple[Edge, int | None]], through: Collection[str]) -> dict[str, int]:
    names = {id(edge): name for name, edge in zip(named.inputs, named.graph.inputs, strict=True)}
    limits: dict[str, int] = {}
    for index, rows in found:
        for source in _sources(index, through):
            if rows is not None and id(source) in names:
                name = names[id(source)]
                limits[name] = min(limits.get(name, rows), rows)
    return limits


def _sources(edge: Edge, through: Collection[str]) -> list[Edge]:
    """The edges that the values of an index come from, through operations of these types."""
    found, pending, seen = [], [edge], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if current.producer is None:
            found.append(current)
        elif current.producer.type in through:
            inputs = current.producer.inputs
            pending += inputs[:1] if current.producer.type in _KEEPS_NUMBERS else inputs
    return found


def _rows(edge: Edge, axis: int | None) -> int | None:
    """The size of an axis of a table that elementwise operations make from a variable."""
    pending = [edge]
    while pending and axis is not None:
        current = pending.pop()
        if current.producer is None:
            if current.shape is not None and len(current.shape) > axis:
                return current.shape[axis]
        elif current is edge and current.producer.type == "Const":
            return int(current.producer.attributes["value"].tensor.tensor_shape.dim[axis].size)
        elif current.producer.type in _KEEPS_ROWS:
            pending += current.producer.inputs
    return None


def _constant(edge: Edge) -> int | None:
    if edge.producer is None or edge.producer.type != "Const":
        return None
    return int(tensor_util.MakeNdarray(edge.producer.attributes["value"].tensor))
