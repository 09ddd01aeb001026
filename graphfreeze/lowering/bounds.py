"""Numbers that are known although what they are computed from is not: max(256, largest + 1) where no byte is larger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Edge, Operation

__all__ = ["bounded"]

Interval = tuple[float, float]

_ANYTHING: Interval = (-math.inf, math.inf)
_DEPTH = 12  # how many operations back the bounds of a number are looked for


def bounded(operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The output of a Minimum or Maximum of numbers of which one always wins, otherwise None."""
    if operation.type not in ("Minimum", "Maximum") or any(tensor.rank or tensor.missing for tensor in inputs):
        return None
    (one_low, one_high), (other_low, other_high) = (_interval(edge, _DEPTH) for edge in operation.inputs)
    one_is_larger, other_is_larger = one_low >= other_high, other_low >= one_high
    if one_is_larger or other_is_larger:
        return [inputs[int(one_is_larger == (operation.type == "Minimum"))]]
    return None


def _interval(edge: Edge, depth: int) -> Interval:
    """The least and the largest that an element of a tensor can be."""
    operation = edge.producer
    if operation is None or not depth:
        return _ANYTHING
    if operation.type == "Const":
        array: npt.NDArray[Any] = tensor_util.MakeNdarray(operation.attributes["value"].tensor)
        return (float(array.min()), float(array.max())) if array.size and array.dtype.kind in "iuf" else _ANYTHING
    rule = _RULES.get(operation.type)
    if rule is None:
        return _ANYTHING
    if operation.type == "Cast" and operation.inputs[0].dtype == tf.bool:
        return 0.0, 1.0
    found = rule(*(_interval(given, depth - 1) for given in operation.inputs))
    # Whole numbers may wrap around where nothing bounds them.
    return found if np.isfinite(found).all() or operation.type in ("Minimum", "Maximum") else _ANYTHING


def _product(a: Interval, b: Interval) -> Interval:
    corners = [x * y for x in a for y in b]
    return (-math.inf, math.inf) if any(math.isnan(corner) for corner in corners) else (min(corners), max(corners))


def _same(a: Interval, *others: Interval) -> Interval:
    return a


_RULES: dict[str, Callable[..., Interval]] = {
    "Minimum": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "Maximum": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "Add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "AddV2": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "Sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "Mul": _product,
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "ExpandDims", "Max", "Min", "StridedSlice"), _same),
}
