"""Which mode a training step runs the model in: told from what its graph does, not from the endpoint's name."""

from __future__ import annotations

import re
from typing import Any

from graphfreeze.training.graph import Operation
from graphfreeze.training.traced_step import TracedStep

__all__ = ["describe_mode"]

# The operations that draw; those that only make the key of a seed do not.
_DRAWS = re.compile(
    r"(Stateless)?(Random(Uniform|Normal|StandardNormal|Gamma|Poisson|Binomial)|RandomUniformInt|RandomUniformFullInt|"
    r"TruncatedNormal|ParameterizedTruncatedNormal|Multinomial|RandomShuffle|Shuffle)(Int|FullInt)?(V\d)?"
)


def describe_mode(step: TracedStep) -> dict[str, Any]:
    """What the endpoint does beyond predicting, for the report.

    A layer that is off in inference mode leaves no trace in the graph: that no statistic is updated and nothing is
    drawn can also mean that the model has no such layer.

    Returns:
        `name`, "training" or "inference"; `message`; the names of the statistics that are updated, of the seeds that
        advance, and of the variables that neither train nor change; the number of random draws; and how many fused
        batch normalizations take the statistics of the batch.
    """
    named = step.graphs["gradients"]
    assigned = {name.removeprefix("new/") for name in named.outputs if name.startswith("new/")}
    state = [p for p in step.parameters if not p.variable.trainable and p.name in {*named.inputs, *assigned}]
    updated = [p.name for p in state if p.resource.dtype.is_floating and p.name in assigned]
    unchanged = [p.name for p in state if p.name not in assigned]
    seeds = [p.name for p in state if not p.resource.dtype.is_floating and p.name in assigned]
    operations = list(named.graph.walk())
    draws = sum(1 for operation in operations if _DRAWS.fullmatch(operation.type))
    fused = sum(
        1
        for operation in operations
        if operation.type.startswith("FusedBatchNorm")
        and "Grad" not in operation.type
        and ("is_training" not in operation.attributes or operation.attributes["is_training"].b)
        and not _is_of_each_example(operation)
    )
    if updated or draws or fused:
        name = "training"
        found = [
            f"updates {_count(len(updated), 'statistic')}" if updated else "",
            f"normalizes by the batch's own statistics in {_count(fused, 'place')}" if fused and not updated else "",
            f"draws {_count(draws, 'random tensor')}" if draws else "",
        ]
        message = f"training mode: {' and '.join(filter(None, found))}"
    else:
        name = "inference"
        message = (
            "inference mode: nothing is drawn at random and no statistic is updated (dropout, noise and batch "
            "statistics are off, if the model has any)"
        )
    return {
        "name": name,
        "message": message,
        "updated_statistics": updated,
        "advanced_seeds": seeds,
        "unchanged": unchanged,
        "random_draws": draws,
        "batch_statistics": fused,
    }


def _is_of_each_example(operation: Operation) -> bool:
    """Whether it is how Keras 2 normalizes layers: the examples lie where channels do, in a batch of one."""
    shape = operation.inputs[0].shape
    return shape is not None and shape[:1] == (1,)


def _count(number: int, singular: str) -> str:
    return f"{number} {singular}{'' if number == 1 else 's'}"
