"""Whether what arithmetic on sizes gives at the samples is what it gives at every size.

The samples are large: a length is above 100 at all of them, and odd unless it is divided. Whether a real one is must be
computed at run time, where what all sizes have in common does not decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.lowering.sizes import Sizes
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Operation

__all__ = ["is_decided"]

Bounds = Callable[[Any, Any], Any]

_COMPARISONS: dict[str, Bounds] = {
    "Less": lambda least, most: (most < 0) | (least >= 0),
    "LessEqual": lambda least, most: (most <= 0) | (least > 0),
    "Greater": lambda least, most: (most <= 0) | (least > 0),
    "GreaterEqual": lambda least, most: (most < 0) | (least >= 0),
    "Equal": lambda least, most: (least > 0) | (most < 0) | ((least == 0) & (most == 0)),
    "NotEqual": lambda least, most: (least > 0) | (most < 0) | ((least == 0) & (most == 0)),
    "Minimum": lambda least, most: (least >= 0) | (most <= 0),
    "Maximum": lambda least, most: (least >= 0) | (most <= 0),
}
"""By the least and the most that the difference of both inputs can be: whether that decides the result."""

_DIVISIONS = ("FloorDiv", "FloorMod")
_ROUNDINGS = ("Cast", "Ceil", "Floor", "Rint", "Round")


def is_decided(operation: Operation, inputs: Sequence[Tensor], output: Tensor, sizes: Sizes) -> bool:
    """Whether a known output may be used for what it is at the samples.

    What a comparison gives may, too, where it is no polynomial of the sizes: then its users have it computed at run
    time. What is rounded may not: twice the half of a size that is odd at all samples would be one less than the size.
    """
    if operation.type not in (*_COMPARISONS, *_DIVISIONS, *_ROUNDINGS) or output.known is None:
        return True
    if all(tensor.constant is not None for tensor in inputs) or len(set(output.shapes)) > 1:
        return True
    if operation.type in _ROUNDINGS:
        given = inputs[0]
        is_rounded = given.dtype.kind == "f" and (output.dtype.kind in "iu" or operation.type != "Cast")
        return not is_rounded or given.known is None or sizes.fit(given.known) is not None
    one, other = (_arrays(tensor, output) for tensor in inputs)
    if operation.type in _DIVISIONS:
        return _has_formula(one, other, sizes) or _divides(one, other, sizes)
    if not _would_be_used(output, sizes):
        return True
    least = _least(one, other, sizes)
    return bool(_COMPARISONS[operation.type](least, -_least(other, one, sizes)).all())


def _would_be_used(output: Tensor, sizes: Sizes) -> bool:
    return output.constant is not None or (output.known is not None and sizes.fit(output.known) is not None)


def _arrays(tensor: Tensor, output: Tensor) -> list[npt.NDArray[Any]]:
    assert tensor.known is not None
    return [np.broadcast_to(a, shape) for a, shape in zip(tensor.known, output.shapes, strict=True)]


def _least(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]], sizes: Sizes) -> npt.NDArray[Any]:
    """The least that a difference can be."""
    if _is_same(other):
        return np.asarray(sizes.bound(one) - other[0])
    if _is_same(one):
        return np.asarray(one[0] + sizes.bound([-array for array in other]))
    return sizes.bound([a - b for a, b in zip(one, other, strict=True)])


def _is_same(arrays: Sequence[npt.NDArray[Any]]) -> bool:
    return all(np.array_equal(array, arrays[0]) for array in arrays)


def _has_formula(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]], sizes: Sizes) -> bool:
    """Whether each number divided is one that is known how often it has the divisor in it, at every length.

    Raises:
        NewQuotient: It will be, with one size more.
    """
    if not _is_same(other) or one[0].dtype.kind != "i":
        return False
    divisors = other[0].reshape(-1).tolist()
    numbers = zip(*(array.reshape(-1).tolist() for array in one), strict=True)
    return all(
        divisor == 1 or len(set(number)) == 1 or (divisor > 0 and sizes.divided(number, 0, divisor) is not None)
        for number, divisor in zip(numbers, divisors, strict=True)
    )


def _divides(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]], sizes: Sizes) -> bool:
    """Whether nothing is left over for any size, or what is left over does not follow the sizes."""
    quotients = [a // b for a, b in zip(one, other, strict=True)]
    if all(np.array_equal(q * b, a) for q, a, b in zip(quotients, one, other, strict=True)):
        return sizes.fit(quotients) is not None
    found = sizes.fit(one)
    if found is None or not _is_same(other):
        return False
    return all(not (factor % other[0]).any() for monomial, factor in found.items() if monomial)
