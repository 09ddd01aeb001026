"""Which number an element of a shape is: where it was computed, before it was cast, packed and picked again.

Two arrays are of one size where the same number gives it, whatever way it took: `tf.range(n)`, say, and an array that
is reshaped to `[n, n]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.training.graph import Edge, Operation

__all__ = ["Number", "number_of", "numbers_of"]

_UNCHANGED = frozenset({"Cast", "ExpandDims", "Identity", "Reshape", "Snapshot", "Squeeze", "StopGradient"})
"""Operations whose elements are those of the first input, in the same order."""


@dataclass(frozen=True, slots=True)
class Number:
    """An element of a tensor.

    Attributes:
        edge: The tensor.
        place: Which element it is, in row-major order.
    """

    edge: Edge
    place: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether it is of an integer type."""
        return bool(self.edge.dtype.is_integer)

    @property
    def constant(self) -> float | None:
        """What it is, if it is an element of a constant."""
        array = _constant(self.edge)
        return None if array is None else float(array.reshape(-1)[self.place if array.size > 1 else 0])


def numbers_of(edge: Edge) -> list[Number] | None:
    """The elements of a vector, or None where its length is not known."""
    shape = _static(edge)
    return None if shape is None or len(shape) != 1 else [number_of(edge, place) for place in range(shape[0])]


def number_of(edge: Edge, place: int = 0) -> Number:
    """Where an element was computed.

    Casts are passed as long as the number is whole before them: small whole numbers are the same in every type, but a
    fraction is not what it is cast to.
    """
    number = whole = Number(edge, place)
    while (before := _before(number)) is not None:
        number = before
        if number.is_whole:
            whole = number
    return whole if whole.is_whole else number


def _before(number: Number) -> Number | None:
    """The same number in an input of the operation that made the tensor, or None where it is computed there."""
    operation = number.edge.producer
    if operation is None or not operation.inputs:
        return None
    first = operation.inputs[0]
    if operation.type in _UNCHANGED:
        return Number(first, number.place)
    if operation.type == "Pack":
        axis = operation.attributes.get("axis")
        return _in_parts(number, operation.inputs, 0 if axis is None else axis.i, is_new=True)
    if operation.type == "ConcatV2":
        axis = _constant(operation.inputs[-1])
        return None if axis is None else _in_parts(number, operation.inputs[:-1], int(axis))
    if operation.type == "Transpose":
        shape, order = _static(first), _constant(operation.inputs[1])
        if shape is None or order is None:
            return None
        return Number(first, int(np.arange(np.prod(shape)).reshape(shape).transpose(order).reshape(-1)[number.place]))
    if operation.type in ("StridedSlice", "GatherV2"):
        place = _picked_place(operation)
        return None if place is None else Number(first, place)
    return None


def _in_parts(number: Number, parts: list[Edge], axis: int, *, is_new: bool = False) -> Number | None:
    """The number in one of the arrays that were put together along an axis, a new one or one of theirs."""
    shapes = [_static(part) for part in parts]
    places = []
    for index, shape in enumerate(shapes):
        if shape is None:
            return None
        own = np.stack([np.full(shape, index), np.arange(np.prod(shape)).reshape(shape)])
        places.append(own)
    at = axis + 1 if axis >= 0 else axis
    together = np.stack(places, at) if is_new else np.concatenate(places, at)
    index, place = together.reshape(2, -1)[:, number.place]
    return Number(parts[int(index)], int(place))


def _picked_place(operation: Operation) -> int | None:
    """Which element of a vector is picked, where a constant says so."""
    shape, index = _static(operation.inputs[0]), _constant(operation.inputs[1])
    if shape is None or len(shape) != 1 or _static(operation.outputs[0]) != () or index is None:
        return None
    return int(index.reshape(-1)[0]) % shape[0]


def _static(edge: Edge) -> tuple[int, ...] | None:
    sizes = [size for size in edge.shape or () if size is not None]
    return tuple(sizes) if edge.shape is not None and len(sizes) == len(edge.shape) else None


def _constant(edge: Edge) -> npt.NDArray[np.generic] | None:
    while edge.producer is not None and edge.producer.type in ("Cast", "Identity"):
        edge = edge.producer.inputs[0]
    if edge.producer is None or edge.producer.type != "Const":
        return None
    array: npt.NDArray[np.generic] = tensor_util.MakeNdarray(edge.producer.attributes["value"].tensor)
    return array
