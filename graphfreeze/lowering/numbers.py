"""Arithmetic on whole numbers that are known at every sample: sizes, lengths of lists, where loops start and end."""

from __future__ import annotations

from graphfreeze.lowering.tensor import Dim

__all__ = ["plus", "static"]


def plus(number: Dim, other: Dim | int, factor: int = 1) -> Dim:
    """`number + factor * other`."""
    others = (other,) * len(number) if isinstance(other, int) else other
    return tuple(one + factor * two for one, two in zip(number, others, strict=True))


def static(number: Dim) -> int | None:
    """The number if it is the same whatever the sizes are, otherwise None."""
    return number[0] if len(set(number)) == 1 else None
