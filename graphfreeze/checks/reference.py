"""TensorFlow's loss and gradients for one batch, and how far they move under a change of one unit in the last place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.checks.precision import computed_roundoffs, read_roundoffs
from graphfreeze.errors import DataError
from graphfreeze.training.gradient_names import gradient_names
from graphfreeze.training.gradient_rows import cut_rows
from graphfreeze.training.traced_step import TracedStep
from graphfreeze.validation.tolerance import Coarse, hides, scale_of, slope, unit_roundoff

__all__ = [
    "Reference",
    "call_gradients",
    "compute_reference",
    "optimizer_gradients",
    "restored",
    "run_gradients",
    "run_results",
]

Tensors = Mapping[str, npt.NDArray[Any]]

_UNITS = (1.0, 1.0, 1.0)
"""By up to how many units in the last place each run moves the numbers."""
_UNITS_IF_COARSE = (*_UNITS, 2.0**-1, 2.0**-2, 2.0**-3, 2.0**-4, 2.0**-5, 2.0**-6, 2.0**-7)
"""A part of a unit moves the few numbers by a whole unit that it takes to the other side of a cast's rounding."""


@dataclass(frozen=True)
class Reference:
    """What TensorFlow computes for one batch.

    Attributes:
        losses: The loss, and where the endpoint has several outputs each one's own, by the names of the results.
        gradients: The gradient of each trained parameter by name, in TensorFlow's layout.
        loss_noise: The largest change of each loss when parameters and float inputs move by one unit in the last place.
        noise: The same for each gradient: the largest change of any element.
        coarse: What is known of the gradients that are computed in a coarser dtype than their own.
    """

    losses: Tensors
    gradients: Tensors
    loss_noise: Mapping[str, float]
    noise: Mapping[str, float]
    coarse: Mapping[str, Coarse] = field(default_factory=dict)


def compute_reference(step: TracedStep, batch: Tensors, seed: int) -> Reference:
    """Run the traced gradients on the batch, and again on slightly moved parameters and inputs.

    The noise is the yardstick for nets that amplify rounding: no other implementation can be expected to agree with
    TensorFlow better than TensorFlow agrees with itself. What the step casts to a coarser dtype before it uses it moves
    by a unit of that dtype, for less would vanish in the cast. All variables are as before afterwards.

    Args:
        step: The traced step.
        batch: Arrays by the names of the data contract.
        seed: Where the small changes come from.
    """
    losses, gradients = run_gradients(step, batch)
    read = read_roundoffs(step.graphs["gradients"])
    computed = computed_roundoffs(step.graphs["gradients"])
    coarse = {
        name: roundoff
        for name, gradient in gradients.items()
        if (roundoff := computed.get(f"gradient/{name}", 0.0)) > unit_roundoff(gradient.dtype)
    }
    rng = np.random.default_rng(seed)
    loss_noise = dict.fromkeys(losses, 0.0)
    moves: dict[str, list[_Move]] = {name: [] for name in gradients}
    for units in _UNITS_IF_COARSE if coarse else _UNITS:
        with restored(step, [p.resource for p in step.trained]):
            for p in step.trained:
                p.resource.assign(_moved(p.resource.numpy(), rng, units, read.get(p.name)))
            inputs = {e.name: _moved(batch[e.name], rng, units, read.get(e.name)) for e in step.endpoint.inputs}
            moved_losses, moved = run_gradients(step, {**batch, **inputs})
        for name, loss in losses.items():
            loss_noise[name] = max(loss_noise[name], abs(float(moved_losses[name]) - float(loss)))
        for name, gradient in gradients.items():
            change = scale_of(moved[name].astype(np.float64) - gradient.astype(np.float64))
            moves[name].append(_Move(change, abs(slope(moved[name], gradient) - 1) if name in coarse else 0.0))
    noise = {name: max(move.change for move in found) for name, found in moves.items()}
    known = {name: _coarse(roundoff, scale_of(gradients[name]), moves[name]) for name, roundoff in coarse.items()}
    return Reference(losses, gradients, loss_noise, noise, known)


def run_gradients(step: TracedStep, batch: Tensors) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """The losses by name and the gradients by parameter, the variables restored; see `run_results`."""
    results = run_results(step, batch)
    losses = {name: results[name] for name in ("loss", *step.objective.named)}
    return losses, {p.name: results[f"gradient/{p.name}"] for p in step.trained}


def run_results(step: TracedStep, batch: Tensors) -> dict[str, npt.NDArray[Any]]:
    """What the traced function `gradients` returns, by name, the variables restored.

    Raises:
        DataError: TensorFlow cannot run the step on the batch.
    """
    written = {name.removeprefix("new/") for name in step.graphs["gradients"].outputs}
    with restored(step, [variable for name, variable in _variables(step).items() if name in written]):
        try:
            results = call_gradients(step, batch)
        except tf.errors.OpError as error:
            # The first lines say where: which functions called which.
            lines = [line.strip() for line in error.message.splitlines() if line.strip() and "[[" not in line]
            raise DataError(
                "TensorFlow cannot run the model's step on the batch that it is checked with: "
                f"{lines[-1].rstrip('.') if lines else type(error).__name__}. "
                "Give a batch that it runs on with --data, or mend the model"
            ) from error
    return {name: np.asarray(result.numpy()) for name, result in zip(step.results, results, strict=True)}


def optimizer_gradients(step: TracedStep, results: Tensors, *, whole: bool = False) -> dict[str, npt.NDArray[Any]]:
    """What the optimizer takes, by the names of the graph `apply_gradients`, in TensorFlow's layout.

    Args:
        step: The traced step.
        results: What `run_results` gave.
        whole: Whether of whole variables. Otherwise, of slices that train, where only those are kept.
    """
    given: dict[str, npt.NDArray[Any]] = {}
    for p in step.trained:
        names = gradient_names(p.name, step.by_rows)
        found = [results[name] for name in names]
        if p.slices is not None and not whole:
            found = [p.slices.cut(found[0])] if len(found) == 1 else [*cut_rows(p.slices, found[0], found[1])]
        given |= dict(zip(names, found, strict=True))
    return given


def call_gradients(step: TracedStep, batch: Tensors) -> list[Any]:
    """The losses and gradients as tensors; statistics and seeds advance.

    Noise that TensorFlow would draw from a state of its own comes from the seed of the step.
    """
    step.restore_values()
    if step.noise is None:
        return list(step.functions["gradients"](*(tf.constant(batch[entry.name]) for entry in step.batch)))
    named = step.noise.gradients
    variables = _variables(step)
    values = [tf.constant(batch[n]) if n in batch else variables[n].read_value() for n in named.inputs]
    results = dict(zip(named.outputs, Interpreter(named.graph)(values), strict=True))
    for name, value in results.items():
        if name.startswith("new/"):
            variables[name.removeprefix("new/")].assign(value)
    return [value for name, value in results.items() if not name.startswith("new/")]


@contextmanager
def restored(step: TracedStep, variables: Sequence[Any] | None = None) -> Iterator[None]:
    """Put variables back at the end, by default all: seeds, statistics and optimizer state move in a run."""
    step.restore_values()
    if variables is None:
        variables = [*{id(v): v for p in step.parameters for v in (p.resource, p.state)}.values()]
        variables += [v.variable for v in step.optimizer_variables]
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _variables(step: TracedStep) -> dict[str, Any]:
    """What the graphs of gradients call the variables."""
    return {p.name: p.resource for p in step.parameters} | {v.name: v.variable for v in step.optimizer_variables}


@dataclass(frozen=True)
class _Move:
    """By how much a gradient changed, and its slope."""

    change: float
    slope: float


def _coarse(roundoff: float, scale: float, moves: list[_Move]) -> Coarse:
    calm = [move for move in moves if not hides(move.change, scale)] or moves
    return Coarse(roundoff, max(move.change for move in calm), max(move.slope for move in calm))


def _moved(
    array: npt.NDArray[Any], rng: np.random.Generator, units: float = 1.0, roundoff: float | None = None
) -> npt.NDArray[Any]:
    """The array with each element moved by up to so many units in the last place; whole numbers stay: they may index.

    Args:
        array: The array.
        rng: Where the changes come from.
        units: The number of units.
        roundoff: The unit roundoff of the dtype in which it is used, by default its own.
    """
    if not tf.as_dtype(array.dtype).is_floating:
        return array
    exact = array.astype(np.float64)
    if np.array_equal(exact, np.rint(exact)):
        return array
    one_unit = 2 * max(unit_roundoff(array.dtype), roundoff or 0.0)
    return (exact * (1.0 + units * one_unit * rng.uniform(-1.0, 1.0, array.shape))).astype(array.dtype)
