"""What an optimizer moves where it has every reason to.

A step may rightly leave elements where they are: gradients accumulate, a schedule begins at 0, FTRL keeps at 0 what
is small, an update underflows. What a mask holds ends at the same number whatever gradient, rate and step are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.manifest import Manifest
from graphfreeze.validation.tolerance import scale_of

__all__ = ["find_movable"]

_SIZE = 1024.0
"""Of the largest element of each gradient: large, and small enough for float16."""
_STEPS = (1, 10, 100, 1000)
"""The steps at which it is tried, of those in which accumulated gradients are applied."""


def find_movable(
    manifest: Manifest,
    initial: Mapping[str, npt.NDArray[Any]],
    gradients: Mapping[str, npt.NDArray[Any]],
    zeros: Mapping[str, npt.NDArray[Any]],
    apply_gradients: Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]],
) -> dict[str, npt.NDArray[np.bool_]]:
    """Where a step makes of zeros something else with large gradients than with their opposite.

    Args:
        manifest: The artifact's manifest.
        initial: The state.
        gradients: The gradients as `apply_gradients` takes them.
        zeros: The parameters in question, as zeros.
        apply_gradients: Runs the graph of that name.
    """
    both = [{name: _large(value, sign) for name, value in gradients.items()} for sign in (1.0, -1.0)]
    rates = {e.name: np.ones_like(initial[e.name]) for e in manifest.state if e.role == "hyperparameter"}
    counters = [e.name for e in manifest.state if e.role == "optimizer_state" and e.name.endswith("/iteration")]
    accumulated = [entry.arguments.get("gradient_accumulation_steps") for entry in manifest.optimizers]
    together = math.lcm(*(int(number) for number in accumulated if number))
    movable = {name: np.zeros(value.shape, np.bool_) for name, value in zeros.items()}
    for step in _STEPS:
        at_step = {name: np.full_like(initial[name], step * together - 1) for name in counters}
        there, back = (apply_gradients({**initial, **large, **rates, **at_step, **zeros}) for large in both)
        for name in movable:
            # What is no number has moved, too.
            movable[name] |= there[f"new/{name}"] != back[f"new/{name}"]
    return movable


def _large(gradient: npt.NDArray[Any], sign: float) -> npt.NDArray[Any]:
    """The gradient, or rows of one, made large; indices stay."""
    scale = scale_of(gradient) if gradient.dtype.kind not in "iu" else 0.0
    if not 0 < scale < float("inf"):
        return gradient
    return (gradient.astype(np.float64) * (sign * _SIZE / scale)).astype(gradient.dtype)
