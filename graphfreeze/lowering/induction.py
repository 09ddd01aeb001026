"""Arithmetic on loop counters: what is an affine function of the iteration stays one, and emits nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphfreeze.lowering.shapes import numpy_dtype
from graphfreeze.lowering.tensor import Induction, Tensor
from graphfreeze.training.graph import Operation

__all__ = ["fold_induction"]


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
                return [_like(inputs[0], Induction(-of.scale, -of.offset, of.iteration))]
            case "Cast" if (dtype := numpy_dtype(operation.outputs[0].dtype)).kind == "i":
                return [Tensor(dtype, inputs[0].shapes, induction=of)]
        return None
    if len(inputs) != 2:
        return None
    left, right = inputs
    other = (right if left.induction is not None else left).constant
    if other is None or other.shape != () or other.dtype.kind != "i":
        return None
    number = int(other)
    match operation.type:
        case "Add" | "AddV2":
            made = Induction(of.scale, of.offset + number, of.iteration)
        case "Sub" if left.induction is not None:
            made = Induction(of.scale, of.offset - number, of.iteration)
        case "Sub":
            made = Induction(-of.scale, number - of.offset, of.iteration)
        case "Mul":
            made = Induction(of.scale * number, of.offset * number, of.iteration)
        case _:
            return None
    return [_like(left, made)]


def _like(tensor: Tensor, induction: Induction) -> Tensor:
    return Tensor(np.dtype(tensor.dtype), tensor.shapes, induction=induction)
