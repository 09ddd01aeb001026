"""The slope of a function of one number at 0, from values of the function alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

__all__ = ["STEPS", "Slope", "find_slope"]

STEPS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
"""The steps that are tried, in the unit of the function, until one is as good as `_GOOD`."""
_GOOD = 1e-7
"""A relative error that is as small as the rounding of float32: no smaller step is needed."""
_ROUNDINGS = 8
"""By how many units in the last place a value of the function is off: a guess, for what the differences do not show."""


@dataclass(frozen=True)
class Slope:
    """A slope as finite differences have it.

    Attributes:
        value: The slope.
        error: An estimate of how far it is from the true one. Large at a kink.
        step: The step that it comes from.
    """

    value: float
    error: float
    step: float


def find_slope(function: Callable[[float], float], middle: float) -> Slope:
    """Central differences, extrapolated.

    A kink or a jump of the function within the step shows in differences that do not converge; then a smaller step
    follows, which most often has it outside. So what comes back is the first step that is good, else the best.

    Args:
        function: The function.
        middle: Its value at 0.
    """
    found: list[Slope] = []
    for step in STEPS:
        found.append(_extrapolated(function, middle, step))
        if found[-1].error <= _GOOD * abs(found[-1].value):
            break
    return min(found, key=lambda slope: slope.error)


def _extrapolated(function: Callable[[float], float], middle: float, step: float) -> Slope:
    """Richardson's extrapolation from h, h/2 and h/4 (Ridders 1982, Advances in Engineering Software 4, 75-76).

    D(h) = (f(h) - f(-h)) / 2h = f' + a h^2 + b h^4 + ...: (4 D(h/2) - D(h)) / 3 is free of a, and of two of these
    (16 E(h/2) - E(h)) / 15 is free of b. The error is estimated by the difference of these two, which is that of the
    worse one; by rounding, of values of the size of f; and by what is left of f'(+0) - f'(-0), which is not zero where
    there is a kink at 0 itself, for J(h) = (f(h) - 2 f(0) + f(-h)) / h = J(0) + c h + ...
    """
    lengths = (step, step / 2, step / 4)
    ends = [(function(length), function(-length)) for length in lengths]
    central = [(ahead - behind) / (2 * length) for (ahead, behind), length in zip(ends, lengths, strict=True)]
    better = [(4 * half - whole) / 3 for whole, half in pairwise(central)]
    value = (16 * better[1] - better[0]) / 15
    kinks = [(ahead - 2 * middle + behind) / length for (ahead, behind), length in zip(ends, lengths, strict=True)]
    kink = abs(2 * kinks[2] - kinks[1])
    size = max(abs(middle), *(abs(end) for pair in ends for end in pair))
    rounding = _ROUNDINGS * float(np.finfo(np.float64).eps) * size / lengths[-1]
    return Slope(value, max(abs(better[1] - better[0]), kink) + rounding, step)
