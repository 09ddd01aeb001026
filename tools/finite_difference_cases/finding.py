"""Converts a case, and sums up what finite differences say of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf

from graphfreeze.checks.double_precision import SinglePrecisionError
from graphfreeze.errors import GraphfreezeError
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.training.chosen_optimizers import parse_optimizers
from graphfreeze.training.losses import parse_losses
from graphfreeze.training.trace import trace_step
from tools.coverage_cases.case import Case
from tools.coverage_cases.exports import Exports
from tools.coverage_cases.measure import draw_batch
from tools.finite_difference_cases.cases import DIRECTIONS, MOST_DIRECTIONS, NO_DERIVATIVE, endpoint_of
from tools.finite_difference_cases.comparison import Verdict
from tools.finite_difference_cases.examine import Examined, examine

__all__ = ["NOT_AVAILABLE", "Finding", "Workspace", "sum_up"]

NOT_AVAILABLE = "not available"
_NAMED = 3
"""How many parameters a line names at most, the worst first."""


@dataclass
class Finding:
    """What a case showed.

    Attributes:
        name: `group/name` of the case.
        outcome: `agrees`, `differs`, `undecided`, `no derivative` (it differs, as it must) or `not available`.
        detail: What differs or is undecided, or why nothing is available.
        parameters: How many gradients were compared.
        zeros: How many of them are zero but for rounding.
        directions: Along how many directions, in all.
        left_out: Along how many finite differences did not converge.
        loss_error: Of the losses, relative.
        gradient_error: The largest relative difference of a gradient that is not zero.
        estimate: The largest estimated relative error of the finite differences for such a gradient.
    """

    name: str
    outcome: str = NOT_AVAILABLE
    detail: str = ""
    parameters: int = 0
    zeros: int = 0
    directions: int = 0
    left_out: int = 0
    loss_error: float | None = None
    gradient_error: float | None = None
    estimate: float | None = None


class Workspace(Exports):
    """Examines cases in a directory of its own."""

    def find(self, case: Case) -> Finding:
        """Export, trace, lower, run and compare. What cannot be done is an outcome."""
        try:
            return sum_up(case.key, self._examine(case))
        except (GraphfreezeError, SinglePrecisionError) as error:
            return Finding(case.key, detail=str(error))
        except tf.errors.OpError as error:
            reason = re.sub(r"\{\{.*?\}\} | \[Op:.*", "", error.message.splitlines()[0])
            return Finding(case.key, detail=f"TensorFlow cannot run it in float64: {reason}")
        finally:
            keras.backend.clear_session()

    def _examine(self, case: Case) -> Examined:
        saved_model = self.export(case)
        step = trace_step(
            saved_model,
            SavedModel.load(saved_model).variables,
            FreezePlan(),
            losses=parse_losses(case.loss),
            optimizers=parse_optimizers("sgd"),
            endpoint=endpoint_of(case),
        )
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            directions = DIRECTIONS.get(case.group, MOST_DIRECTIONS)
            return examine(step, draw_batch(case, step), Path(name) / "training", directions=directions)


def sum_up(name: str, examined: Examined) -> Finding:
    """One line of what was found of every parameter."""
    verdicts = examined.verdicts
    genuine = [verdict for verdict in verdicts if verdict.rule != "zero"]
    bad = [v for v in verdicts if v.outcome == "differs"] or [v for v in verdicts if v.outcome == "undecided"]
    outcome = bad[0].outcome if bad else "agrees"
    return Finding(
        name,
        "no derivative" if outcome == "differs" and name in NO_DERIVATIVE else outcome,
        _describe(bad),
        len(verdicts),
        len(verdicts) - len(genuine),
        sum(verdict.directions for verdict in verdicts),
        sum(verdict.left_out for verdict in verdicts),
        examined.loss_error,
        max((verdict.error for verdict in genuine), default=0.0),
        max((verdict.estimate for verdict in genuine), default=0.0),
    )


def _describe(bad: Sequence[Verdict]) -> str:
    worst = sorted(bad, key=lambda verdict: -verdict.error)[:_NAMED]
    named = [f"{v.name} ({v.rule}) by {v.error:.1e}, estimate {v.estimate:.1e}" for v in worst]
    return "; ".join([*named, f"and {len(bad) - _NAMED} more"] if len(bad) > _NAMED else named)
