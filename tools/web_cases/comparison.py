"""What a backend made of the batches, beside what `Trainer` made of them.

Losses are compared as they are. Of floating-point states the change over all steps is, by the rules of
`graphfreeze/validation/tolerance.py`: a state itself would hide a small update behind a large weight. The noise that
these rules ask for is by how much the same number changes when `Trainer` begins with weights one unit in the last place
beside the initial ones. Other states have to be equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

import graphfreeze
from graphfreeze.artifact.manifest import StateEntry
from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection.variable import numpy_dtype
from graphfreeze.validation.tolerance import Coarse, Comparison, compare, scale_of, slope, unit_roundoff
from tools.web_cases.backends import Run
from tools.web_cases.prepare import Arrays, Expected

__all__ = ["Finding", "compare_losses", "compare_run"]


@dataclass
class Finding:
    """What was found of a model on a backend.

    Attributes:
        model: The case.
        backend: Where it was trained.
        outcome: `agrees`, `differs` or `cannot`.
        detail: What differs; why it cannot.
        loss_error: The largest relative difference of a loss.
        state_error: The largest relative difference of a state's change, in the Euclidean norm, without those that are
            zero but for rounding.
        rules: How many states each rule accepted.
        frozen: How many frozen elements kept every bit.
        milliseconds: Of the fastest step.
        adapter: The GPU, where one was asked for.
        trainer_milliseconds: The same of `Trainer`.
    """

    model: str
    backend: str
    outcome: str = "cannot"
    detail: str = ""
    loss_error: float | None = None
    state_error: float | None = None
    rules: dict[str, int] = field(default_factory=dict)
    frozen: int | None = None
    milliseconds: float | None = None
    adapter: str | None = None
    trainer_milliseconds: float | None = None


def compare_run(run: Run, expected: Expected, finding: Finding) -> None:
    """Fill in what a run shows."""
    finding.adapter = run.adapter
    finding.trainer_milliseconds = expected.milliseconds
    if run.milliseconds:
        finding.milliseconds = min(run.milliseconds)
    problems = compare_losses(run.losses, expected.losses, [run.losses for run in expected.moved], finding)
    if run.state is not None:
        problems += _compare_states(run, expected, finding)
    finding.outcome = "differs" if problems else "agrees"
    finding.detail = "; ".join(problems[:3])


def compare_losses(
    found: Sequence[float], expected: Sequence[float], moved: Sequence[Sequence[float]], finding: Finding
) -> list[str]:
    """Compare the losses of all steps. Returns what differs."""
    if len(found) != len(expected):
        return [f"{len(found)} losses in place of {len(expected)}"]
    problems = []
    errors = []
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        noise = max((abs(float(run[step]) - theirs) for run in moved), default=0.0)
        result = compare(np.array(ours, np.float32), np.array(theirs, np.float32), largest=abs(theirs), noise=noise)
        errors.append(result.relative_l2)
        if not result.accepted:
            problems.append(f"the loss of step {step} is {ours:.7g} in place of {theirs:.7g} ({result.rule})")
    finding.loss_error = float(np.max(errors))
    return problems


def _compare_states(run: Run, expected: Expected, finding: Finding) -> list[str]:
    assert run.state is not None
    try:
        # It also compares every frozen element with the plan, bit by bit.
        trainer = graphfreeze.Trainer(expected.artifact, device="cpu", state=run.state)
    except ArtifactReadError as error:
        return [str(error)]
    frozen = trainer.frozen
    assert frozen is not None
    finding.frozen = frozen.elements
    found = trainer.state_dict()
    entries = expected.artifact.manifest.state
    largest: dict[str, float] = {}
    for entry in entries:
        scale = scale_of(_change(expected.state, expected.initial, entry.name))
        largest[_kind(entry)] = max(largest.get(_kind(entry), 0.0), scale)
    problems = []
    rules: Counter[str] = Counter()
    errors = [0.0]
    for entry in entries:
        if expected.state[entry.name].dtype.kind != "f":
            equal = np.array_equal(found[entry.name], expected.state[entry.name])
            rules["exact"] += equal
            if not equal:
                problems.append(f"{entry.name} is not equal")
            continue
        result = _compare_change(entry.name, found, expected, largest[_kind(entry)])
        rules[result.rule] += 1
        if result.rule != "zero":
            errors.append(result.relative_l2)
        if not result.accepted:
            problems.append(
                f"{entry.name} has changed by {result.error:.2g} more or less, allowed is {result.allowed:.2g} "
                f"({result.rule})"
            )
    finding.state_error = float(np.max(errors))
    finding.rules = dict(rules)
    return problems


def _compare_change(name: str, found: Arrays, expected: Expected, largest: float) -> Comparison:
    change = _change(expected.state, expected.initial, name)
    moved = [_change(run.state, run.initial, name) for run in expected.moved]
    noise = max(scale_of(other.astype(np.float64) - change.astype(np.float64)) for other in moved)
    coarse = None
    if expected.coarse is not None:
        slopes = [abs(slope(other, change) - 1) for other in moved]
        coarse = Coarse(unit_roundoff(numpy_dtype(expected.coarse)), noise, max(slopes))
    return compare(_change(found, expected.initial, name), change, largest=largest, noise=noise, coarse=coarse)


def _change(new: Arrays, old: Arrays, name: str) -> npt.NDArray[Any]:
    return (new[name].astype(np.float64) - old[name].astype(np.float64)).astype(new[name].dtype)


def _kind(entry: StateEntry) -> str:
    """Which states are computed from each other's size: parameters; momenta; their squares."""
    return entry.name.rsplit("/", 1)[-1] if entry.role == "optimizer_state" else entry.role
