"""The outcome of one check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Check", "conclude"]

_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """One check of the report.

    Attributes:
        name: What was checked.
        passed: Whether it holds.
        message: What was found; where it does not hold: which variable, and by how much.
    """

    name: str
    passed: bool
    message: str


def conclude(name: str, problems: Sequence[str], found: str) -> Check:
    """The check that fails with the first problems, or passes with what was found."""
    if not problems:
        return Check(name, True, found)
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return Check(name, False, "; ".join(problems[:_SHOWN]) + more)
