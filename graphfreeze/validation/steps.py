"""Some optimizer steps: frozen elements keep their bits, and the others move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.frozen import FrozenElements, differing_bits
from graphfreeze.artifact.manifest import Manifest
from graphfreeze.runtime.trainer import Trainer
from graphfreeze.validation.check import Check, conclude
from graphfreeze.validation.provoked import find_movable
from graphfreeze.validation.tolerance import scale_of, unit_roundoff

__all__ = ["Movement", "check_frozen_bits", "check_movement", "measure_movement"]

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Movement:
    """What the steps did to the trainable elements of one parameter.

    Attributes:
        name: The parameter.
        trainable: How many elements may move.
        moved: How many did.
        zero_gradient: How many did not, because their gradient is zero.
        rounded_away: How many did not, because the update is smaller than half a unit in their last place, or because
            the optimizer makes none of such a gradient in these steps.
        held_by_constraint: How many did not, although they have a gradient, of a parameter that has a constraint.
        stuck: How many did not, and do not whatever the gradient is.
    """

    name: str
    trainable: int
    moved: int
    zero_gradient: int
    rounded_away: int
    held_by_constraint: int
    stuck: int

    def record(self) -> dict[str, Any]:
        """The movement as a flat record."""
        return {
            "trainable_elements": self.trainable,
            "moved": self.moved,
            "not_moved_zero_gradient": self.zero_gradient,
            "not_moved_rounded_away": self.rounded_away,
            "not_moved_held_by_constraint": self.held_by_constraint,
            "stuck": self.stuck,
        }


def check_frozen_bits(
    trainer: Trainer,
    frozen: FrozenElements,
    batch: Tensors,
    steps: int,
    losses: list[float],
    moved: dict[str, npt.NDArray[np.bool_]],
) -> Check:
    """Train `steps` steps on one batch; after each, every frozen element has the bits of the plan.

    Args:
        trainer: A trainer at the initial state, which is left at the state after the steps.
        frozen: What must not change.
        batch: The batch.
        steps: How many steps.
        losses: Receives the losses.
        moved: Receives, per trainable parameter, which elements had other bits than before the steps after any step:
            a later step may bring an element back to where it was.
    """
    problems: dict[str, str] = {}
    names = [entry.name for entry in trainer.artifact.manifest.trainable_parameters]
    initial: Tensors = {}
    for step in range(steps + 1):
        if step:
            losses.append(trainer.step(batch))
        state = trainer.state_dict()
        initial = initial or state
        for name in names:
            different = differing_bits(initial[name], state[name])
            moved[name] = moved[name] | different if name in moved else different
        for name, count in frozen.changed(state).items():
            when = f"after {step} steps" if step else "in the initial state"
            problems.setdefault(name, f"{count} frozen elements of {name} do not have the bits of the plan {when}")
    found = f"{frozen.elements} frozen elements kept their bits over {steps} steps"
    return conclude("frozen elements keep their bits", list(problems.values()), found)


def measure_movement(
    manifest: Manifest,
    frozen: FrozenElements,
    initial: Tensors,
    moved: Mapping[str, npt.NDArray[np.bool_]],
    gradients: Tensors,
    apply_gradients: Callable[[Mapping[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]],
) -> list[Movement]:
    """Say of what did not move why.

    Args:
        manifest: The artifact's manifest.
        frozen: What does not move.
        initial: The state before.
        moved: Which elements of each trainable parameter moved.
        gradients: `gradient/NAME` at the initial state.
        apply_gradients: Runs the graph of that name.
    """
    not_moved: dict[str, npt.NDArray[np.bool_]] = {}
    trainable: dict[str, npt.NDArray[np.bool_]] = {}
    for entry in manifest.trainable_parameters:
        part = frozen.partly.get(entry.name)
        free = np.ones(entry.stored_shape, np.bool_) if part is None else ~part.stored_frozen
        trainable[entry.name] = free
        not_moved[entry.name] = free & ~moved[entry.name]
    # The update itself is not an output. Beside a parameter of zero nothing of it is rounded away.
    suspects = {
        entry.name: np.zeros_like(initial[entry.name])
        for entry in manifest.trainable_parameters
        if not entry.constrained and (not_moved[entry.name] & (gradients[f"gradient/{entry.name}"] != 0)).any()
    }
    updates = apply_gradients({**initial, **gradients, **suspects}) if suspects else {}
    undecided = {
        name: not_moved[name] & _matters(gradients[f"gradient/{name}"], initial[name], updates[f"new/{name}"])
        for name in suspects
    }
    movable = (
        find_movable(manifest, initial, gradients, suspects, apply_gradients)
        if any(map(np.any, undecided.values()))
        else {}
    )
    movements = []
    for entry in manifest.trainable_parameters:
        name = entry.name
        gradient = gradients[f"gradient/{name}"]
        zero = not_moved[name] & (gradient == 0)
        stuck, held = np.zeros_like(zero), not_moved[name] & ~zero if entry.constrained else np.zeros_like(zero)
        if name in movable:
            stuck = undecided[name] & ~zero & ~movable[name]
        movements.append(
            Movement(
                name,
                trainable=_count(trainable[name]),
                moved=_count(trainable[name] & ~not_moved[name]),
                zero_gradient=_count(zero),
                rounded_away=_count(not_moved[name] & ~zero & ~stuck & ~held),
                held_by_constraint=_count(held),
                stuck=_count(stuck),
            )
        )
    return movements


def check_movement(movements: list[Movement], manifest: Manifest, initial: Tensors) -> Check:
    """Whatever is trainable and has a gradient moves."""
    name = "trainable elements move"
    if any(entry.role == "hyperparameter" and not initial[entry.name] for entry in manifest.state):
        return Check(name, True, "not required: a learning rate is 0")
    problems = [
        f"{item.stuck} of {item.trainable} trainable elements of {item.name} did not move although they have a gradient"
        for item in movements
        if item.stuck
    ]
    moved = sum(item.moved for item in movements)
    total = sum(item.trainable for item in movements)
    still = [item.name for item in movements if not item.moved]
    found = f"{moved} of {total} elements moved"
    if moved < total:
        found += "; the others have a gradient of zero, or an update of zero or below rounding"
        if any(item.held_by_constraint for item in movements):
            found += ", or a constraint holds them"
    return conclude(name, problems, found + (f"; nothing of {', '.join(still)} moved" if still else ""))


def _matters(gradient: npt.NDArray[Any], value: npt.NDArray[Any], update: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Where the gradient is more than noise and the update is either missing or large enough to change the value.

    Where a mask wrongly holds an element, `update` is the value it is held at.
    """
    unit = unit_roundoff(gradient.dtype)
    exact_gradient, exact_update = np.abs(gradient.astype(np.float64)), np.abs(update.astype(np.float64))
    # Below this an update may underflow.
    underflow = float(np.finfo(np.float32).tiny) / unit
    matters = exact_gradient > max(unit * scale_of(gradient), underflow)
    lost = (exact_update > 0) & (exact_update <= 2 * unit * np.abs(value.astype(np.float64)))
    result: npt.NDArray[np.bool_] = matters & ~lost
    return result


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))
