"""What TensorFlow puts around an axis before it takes it apart in blocks, where that follows the size of the axis.

A size that is no multiple of the block is filled up, which is cut off again later: what matters is the difference. Both
are computed from the same shape by sums and remainders. They repeat when the size grows by all divisors, but for a part
that grows steadily, so two rounds of sizes tell what the difference is at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.python.framework import tensor_util

from graphfreeze.training.graph import Edge, Operation

__all__ = ["Amount", "Pads", "constant_of", "difference", "paddings"]

_LONGEST_ROUND = 4096


@dataclass(frozen=True, slots=True)
class Following:
    """A number that follows a shape.

    Attributes:
        shape: The identity of the edge whose shape it is.
        numbers: What it is at one size after the other.
    """

    shape: int
    numbers: tuple[int, ...]


Amount = int | Following
Pads = tuple[tuple[Amount, Amount], ...]
Numbers = npt.NDArray[np.int64]


def paddings(edge: Edge) -> Pads | None:
    """The paddings before and after each axis, or None where they are computed in another way."""
    reader = _Reader()
    if not reader.visit(edge) or len(reader.shapes) > 1 or reader.round > _LONGEST_ROUND:
        return None
    found = reader.evaluate(edge)
    return tuple((_amount(reader, low), _amount(reader, high)) for low, high in found)


def difference(one: Amount, other: Amount) -> int | None:
    """The difference where it is the same at all sizes, otherwise None."""
    if isinstance(one, int) and isinstance(other, int):
        return one - other
    if not isinstance(one, Following) or not isinstance(other, Following):
        return None
    if one.shape != other.shape or len(one.numbers) != len(other.numbers):
        return None
    found = {a - b for a, b in zip(one.numbers, other.numbers, strict=True)}
    return found.pop() if len(found) == 1 else None


def constant_of(edge: Edge) -> npt.NDArray[Any] | None:
    """The value of a constant, or None for anything else."""
    producer = edge.producer
    if producer is None or producer.type != "Const":
        return None
    array: npt.NDArray[Any] = tensor_util.MakeNdarray(producer.attributes["value"].tensor)
    return array


def _amount(reader: _Reader, numbers: Numbers) -> Amount:
    values = tuple(numbers.tolist())
    return values[0] if len(set(values)) == 1 else Following(next(iter(reader.shapes)), values)


class _Reader:
    """Reads arithmetic on one shape; arrays have one axis more, of the sizes that are tried."""

    def __init__(self) -> None:
        self.shapes: set[int] = set()
        self.round = 1
        self._read: dict[int, Numbers] = {}

    def visit(self, edge: Edge) -> bool:
        """Whether it is such arithmetic; takes down of which shape, and after what the remainders repeat."""
        operation = edge.producer
        if operation is None:
            return False
        if operation.type == "Const":
            return True
        if operation.type == "Shape":
            self.shapes.add(id(operation.inputs[0]))
            return operation.inputs[0].shape is not None
        if operation.type not in _ARITHMETIC or not all(map(self.visit, operation.inputs)):
            return False
        if operation.type == "FloorMod":
            divisor = constant_of(operation.inputs[1])
            if divisor is None or (divisor <= 0).any():
                return False
            self.round = math.lcm(self.round, *(int(number) for number in divisor.reshape(-1)))
        return True

    def evaluate(self, edge: Edge) -> Numbers:
        """What was visited, at every size."""
        if id(edge) not in self._read:
            assert edge.producer is not None
            self._read[id(edge)] = self._evaluate(edge.producer)
        return self._read[id(edge)]

    def _evaluate(self, operation: Operation) -> Numbers:
        sizes = np.arange(2 * self.round + 1)
        if operation.type == "Shape":
            shape = operation.inputs[0].shape
            assert shape is not None
            return np.stack([sizes if size is None else np.full_like(sizes, size) for size in shape])
        if operation.type == "Const":
            constant = constant_of(operation.outputs[0])
            assert constant is not None
            return np.broadcast_to(constant[..., None], (*constant.shape, len(sizes))).astype(np.int64)
        return _ARITHMETIC[operation.type](operation, *map(self.evaluate, operation.inputs))


def _slice(operation: Operation, source: Numbers, *bounds: Numbers) -> Numbers:
    index: list[Any] = []
    masks = {name: operation.attributes[f"{name}_mask"].i for name in ("begin", "end", "shrink_axis")}
    for axis, (begin, end, step) in enumerate(zip(*(bound[:, 0].tolist() for bound in bounds), strict=True)):
        if masks["shrink_axis"] >> axis & 1:
            index.append(begin)
        else:
            limits = None if masks["begin"] >> axis & 1 else begin, None if masks["end"] >> axis & 1 else end
            index.append(slice(*limits, step))
    found: Numbers = source[tuple(index)]
    return found


_ARITHMETIC: dict[str, Callable[..., Numbers]] = {
    "Add": lambda operation, a, b: a + b,
    "AddV2": lambda operation, a, b: a + b,
    "FloorMod": lambda operation, a, b: a % b,
    "Identity": lambda operation, a: a,
    "Pack": lambda operation, *parts: np.stack(parts, operation.attributes["axis"].i),
    "StridedSlice": _slice,
    "Sub": lambda operation, a, b: a - b,
}
