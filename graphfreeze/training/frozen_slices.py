"""Says of which parameters whole slices are frozen, and whether these cost anything."""

from __future__ import annotations

from typing import Any

from graphfreeze.selection.slices import WORTHWHILE, fewest_trained_slices
from graphfreeze.training.optimizers import ELEMENTWISE
from graphfreeze.training.parameters import Parameter
from graphfreeze.training.traced_step import TracedStep

__all__ = ["describe_frozen_slices"]


def describe_frozen_slices(step: TracedStep) -> list[dict[str, Any]]:
    """For each parameter of which some whole slices are frozen: where, and of what there is gradient and state.

    Returns:
        JSON-ready records: `name`, `axis`, `slices` and `trained_slices` (counts along it), `state` (`trained slices`
        or `whole`), `reason` (why the whole, otherwise None).
    """
    records = []
    for parameter in step.trained:
        frozen = parameter.frozen
        found = parameter.slices or (None if frozen is None else fewest_trained_slices(frozen.mask))
        if found is not None:
            records.append(
                {
                    "name": parameter.name,
                    "axis": found.axis,
                    "slices": found.size,
                    "trained_slices": len(found),
                    "state": "whole" if parameter.slices is None else "trained slices",
                    "reason": _why_whole(step, parameter),
                }
            )
    return records


def _why_whole(step: TracedStep, parameter: Parameter) -> str | None:
    if parameter.slices is not None:
        return None
    optimizer = step.optimizers.of(parameter.name)
    if optimizer is not None and optimizer.configured.name not in ELEMENTWISE:
        return (
            f"what {optimizer.configured.name} does to an element depends on others of the variable, frozen ones "
            "included: the step is that of the whole variable"
        )
    if any(f"new/{parameter.name}" in step.graphs[name].outputs for name in ("gradients", "forward")):
        return "the forward pass assigns the variable"
    if parameter.constraint is not None:
        return "its constraint sees the whole variable"
    return f"elements of other slices are frozen too, and of whole slices less than {WORTHWHILE:.0%} are"
