"""Constraints of variables, which Keras' optimizers apply at the end of a step: a function of the SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["CONSTRAINTS", "Constraint", "find_constraints"]

CONSTRAINTS = "_graphfreeze_constraints"
"""What `graphfreeze export` calls the function. It returns what the constraints make of variables, by object path."""

Constraint = Callable[[], Any]
"""What a variable becomes, from what it holds."""


def find_constraints(loaded: Any) -> tuple[Any, dict[str, Constraint]]:
    """The concrete function of a loaded SavedModel, None where it has none, and each constraint by object path."""
    function = getattr(loaded, CONSTRAINTS, None)
    concrete = getattr(function, "concrete_functions", None)
    if not concrete:
        return None, {}
    whole = concrete[0]
    return whole, {path: partial(_one_of, whole, path) for path in whole.structured_outputs}


def _one_of(whole: Any, path: str) -> Any:
    return whole()[path]
