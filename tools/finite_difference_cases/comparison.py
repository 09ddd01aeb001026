"""The gradient of one parameter beside finite differences along some directions, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.validation.tolerance import Comparison, compare
from tools.finite_difference_cases.slope import Slope, find_slope

__all__ = ["Direction", "Measured", "Outcome", "Verdict", "judge", "measure"]

Outcome = Literal["agrees", "differs", "undecided"]
Array = npt.NDArray[Any]

_CLEAR = 0.25
"""The part of what a comparison allows that the error of finite differences may be."""
_ATTEMPTS = 3
"""How many times as many directions are tried as are wanted, where some are not clear."""


@dataclass(frozen=True)
class Direction:
    """One direction of a parameter.

    Attributes:
        slope: Of the loss, by finite differences.
        ours: What the gradient says it is.
        noise: By how much that moves with the last bits of parameters and inputs.
    """

    slope: Slope
    ours: float
    noise: float


@dataclass
class Measured:
    """What is known of one parameter.

    Attributes:
        name: The parameter.
        wanted: How many directions are to be compared.
        directions: Those that were measured.
        more: Measures another one.
        frozen: How many of its elements are frozen.
        frozen_not_zero: How many of these have a gradient that is not zero.
    """

    name: str
    wanted: int
    more: Iterator[Direction] = field(repr=False)
    directions: list[Direction] = field(default_factory=list)
    frozen: int = 0
    frozen_not_zero: int = 0


@dataclass(frozen=True)
class Verdict:
    """What finite differences say of the gradient of one parameter.

    Attributes:
        name: The parameter.
        outcome: `agrees`; `differs`; `undecided` where the finite differences themselves are not good enough.
        rule: The rule of `validation.tolerance` that decided.
        directions: How many directions were compared.
        left_out: How many were not, because finite differences do not converge along them: there are kinks.
        error: The difference in the Euclidean norm over the directions, relative.
        estimate: The same of the estimated error of the finite differences.
    """

    name: str
    outcome: Outcome
    rule: str
    directions: int
    left_out: int
    error: float
    estimate: float


def measure(
    name: str,
    loss: Callable[[Mapping[str, Array]], float],
    middle: float,
    value: Array,
    gradients: Sequence[Array],
    directions: Iterator[Array],
    wanted: int,
) -> Measured:
    """Measure the slopes of the loss as the parameter moves.

    Args:
        name: The parameter.
        loss: The loss where parameters are moved by so much.
        middle: The loss where none is.
        value: The parameter.
        gradients: Our gradient, then others at places that are as good as the same.
        directions: Endless directions.
        wanted: How many of them.
    """
    size = float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))) or 1.0

    def along() -> Iterator[Direction]:
        for direction in directions:
            # Elements move by a part of the parameter's size, whatever the number of them that move.
            unit = size * float(np.sqrt(np.count_nonzero(direction)))
            slope = find_slope(lambda t, d=direction, u=unit: loss({name: t * u * d}), middle)  # type: ignore[misc] # bound now
            ours = [float(np.vdot(gradient.astype(np.float64), direction)) for gradient in gradients]
            noise = max((abs(other - ours[0]) for other in ours[1:]), default=0.0)
            yield Direction(Slope(slope.value / unit, slope.error / unit, slope.step), ours[0], noise)

    more = along()
    return Measured(name, wanted, more, list(islice(more, wanted)))


def judge(measured: Measured, largest: float) -> Verdict:
    """Compare by the rules of `validation.tolerance`, for float32, along the directions that are clear.

    Where some are not, others are measured in their place, if there are any.

    Args:
        measured: What is known of the parameter.
        largest: The largest slope of any parameter.
    """
    clear = _clear(measured.directions, largest)
    while len(clear) < measured.wanted and len(measured.directions) < _ATTEMPTS * measured.wanted:
        measured.directions.append(next(measured.more))
        clear = _clear(measured.directions, largest)
    used = clear or measured.directions
    found = _compare(used, largest)
    slopes = np.array([d.slope.value for d in used])
    estimates = np.array([d.slope.error for d in used])
    ours = np.array([d.ours for d in used])
    errors = ours - slopes
    outcome: Outcome = "agrees"
    if measured.frozen_not_zero or (np.isfinite(slopes) & ~np.isfinite(ours)).any():
        outcome = "differs"
    elif not clear or found.rule == "undecidable":
        outcome = "undecided"
    elif not found.accepted:
        outcome = "differs" if (np.abs(errors) > found.allowed + estimates).any() else "undecided"
    norm = float(np.linalg.norm(slopes)) or 1.0
    return Verdict(
        measured.name,
        outcome,
        found.rule,
        len(clear),
        len(measured.directions) - len(clear),
        float(np.linalg.norm(errors)) / norm,
        float(np.linalg.norm(estimates)) / norm,
    )


def _clear(directions: Sequence[Direction], largest: float) -> list[Direction]:
    allowed = _compare(directions, largest).allowed
    return [d for d in directions if d.slope.error <= _CLEAR * allowed]


def _compare(directions: Sequence[Direction], largest: float) -> Comparison:
    return compare(
        np.array([d.ours for d in directions], np.float32),
        np.array([d.slope.value for d in directions], np.float32),
        largest=largest,
        noise=max(d.noise for d in directions),
    )
