"""All gradients of one training step beside finite differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphfreeze.training.traced_step import TracedStep
from tools.finite_difference_cases.comparison import Verdict, judge, measure
from tools.finite_difference_cases.directions import MOST_ELEMENTS, draw_directions
from tools.finite_difference_cases.exact_loss import Arrays, ExactLoss
from tools.finite_difference_cases.our_gradients import OurGradients, generic_point, nudged

__all__ = ["Examined", "examine"]

_DRAWS = 3
"""How often our gradients are computed with other last bits."""


@dataclass(frozen=True)
class Examined:
    """What a step showed.

    Attributes:
        loss_error: The relative difference between our loss, in float32, and the one that is differentiated.
        verdicts: One for each trained parameter.
        frozen: How many elements are frozen in them.
    """

    loss_error: float
    verdicts: list[Verdict]
    frozen: int


def examine(step: TracedStep, batch: Arrays, directory: Path, *, directions: int = 4, seed: int = 0) -> Examined:
    """Compare the gradients of the step's artifact with finite differences.

    Args:
        step: The traced step.
        batch: The batch.
        directory: Where the artifact is written.
        directions: Along how many directions each parameter is moved, if it is not small.
        seed: Where the point and the directions come from.

    Raises:
        GraphfreezeError: The step cannot be lowered.
        SinglePrecisionError: The loss does not exist in float64.
        tf.errors.OpError: TensorFlow cannot compute it in float64.
    """
    rng = np.random.default_rng(seed)
    ours = OurGradients(step, batch, directory)
    point = generic_point(step, rng)
    values = {**batch, **point}
    loss, gradients = ours(values)
    others = [ours(nudged(values, rng))[1] for _ in range(_DRAWS)]
    exact = ExactLoss(step.graphs["gradients"], {**step.values(), **step.constants, **values}, point)
    measured = []
    for parameter in step.trained:
        name, value = parameter.name, point[parameter.name]
        trained = np.broadcast_to(True if parameter.mask is None else parameter.mask, value.shape)
        count = int(np.count_nonzero(trained))
        found = measure(
            name,
            exact,
            exact.value,
            value,
            [side[name] for side in (gradients, *others)],
            draw_directions(value.shape, parameter.mask, rng),
            count if count <= MOST_ELEMENTS else directions,
        )
        found.frozen = value.size - count
        found.frozen_not_zero = int(np.count_nonzero(gradients[name][~trained]))
        measured.append(found)
    largest = max(abs(d.slope.value) for found in measured for d in found.directions)
    verdicts = [judge(found, largest) for found in measured]
    return Examined(
        abs(loss - exact.value) / (abs(exact.value) or 1.0), verdicts, sum(found.frozen for found in measured)
    )
