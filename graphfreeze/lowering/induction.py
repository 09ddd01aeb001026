"""Arithmetic on loop counters: what is an affine function of the iteration stays one, and emits nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphfreeze.lowering.numbers import plus, static
from graphfreeze.lowering.shapes import numpy_dtype
from graphfreeze.lowering.tensor import Induction, Tensor
from graphfreeze.training.graph import Operation

__all__ = ["fold_induction", "scaled"]


def fold_induction(operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The operation's output as an affine function of a loop's iteration, or None where it is none."""
    inductions = [tensor.induction for tensor in inputs if tensor.induction is not None]
    if len(inductions) != 1:
        return None
    (of,) = inductions
    if len(inputs) == 1:
        dtype = inputs[0].dtype
        match operation.type:
            case "Neg":
                return [_like(inputs[0], scaled(of, -1))]
            case "Cast" if (dtype := numpy_dtype(operation.outputs[0].dtype)).kind == "i":
                return [Tensor(dtype, inputs[0].shapes, induction=of)]
        return None
    if len(inputs) != 2:
        return None
    left, right = inputs
    other = (right if left.induction is not None else left).number
    if other is None:
        return None
    factor = static(other)
    match operation.type:
        case "Add" | "AddV2":
            made = Induction(of.scale, plus(of.offset, other), of.iteration)
        case "Sub" if left.induction is not None:
            made = Induction(of.scale, plus(of.offset, other, -1), of.iteration)
        case "Sub":
            made = Induction(-of.scale, plus(other, of.offset, -1), of.iteration)
        case "Mul" if factor is not None:
            made = scaled(of, factor)
        case _:
            return None
    return [_like(left, made)]


def scaled(of: Induction, factor: int) -> Induction:
    """The affine function times a number."""
    return Induction(of.scale * factor, tuple(factor * number for number in of.offset), of.iteration)


def _like(tensor: Tensor, induction: Induction) -> Tensor:
    return Tensor(np.dtype(tensor.dtype), tensor.shapes, induction=induction)
