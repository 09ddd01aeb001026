"""TensorFlow's loss and gradients for one batch, and how far they move under a change of one unit in the last place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.training.trace import TracedStep
from graphfreeze.validation.tolerance import unit_roundoff

__all__ = ["Reference", "call_gradients", "compute_reference", "restored", "run_gradients"]

_DRAWS = 3


@dataclass(frozen=True)
class Reference:
    """What TensorFlow computes for one batch.

    Attributes:
        losses: The loss, and where the endpoint has several outputs each one's own, by the names of the results.
        gradients: The gradient of each trained parameter by name, in TensorFlow's layout.
        loss_noise: The largest change of each loss when parameters and float inputs move by one unit in the last place.
        noise: The same for each gradient: the largest change of any element.
    """

    losses: Mapping[str, npt.NDArray[Any]]
    gradients: Mapping[str, npt.NDArray[Any]]
    loss_noise: Mapping[str, float]
    noise: Mapping[str, float]


def compute_reference(step: TracedStep, batch: Mapping[str, npt.NDArray[Any]], seed: int) -> Reference:
    """Run the traced gradients on the batch, and again on slightly moved parameters and inputs.

    The noise is the yardstick for nets that amplify rounding: no other implementation can be expected to agree with
    TensorFlow better than TensorFlow agrees with itself. All variables are as before afterwards.

    Args:
        step: The traced step.
        batch: Arrays by the names of the data contract.
        seed: Where the small changes come from.
    """
    losses, gradients = run_gradients(step, batch)
    rng = np.random.default_rng(seed)
    loss_noise, noise = dict.fromkeys(losses, 0.0), dict.fromkeys(gradients, 0.0)
    for _ in range(_DRAWS):
        with restored(step):
            for parameter in step.trained:
                parameter.resource.assign(_moved(parameter.resource.numpy(), rng))
            inputs = {entry.name: _moved(batch[entry.name], rng) for entry in step.endpoint.inputs}
            moved_losses, moved = run_gradients(step, {**batch, **inputs})
        for name, loss in losses.items():
            loss_noise[name] = max(loss_noise[name], abs(float(moved_losses[name]) - float(loss)))
        for name, gradient in gradients.items():
            change = np.abs(moved[name].astype(np.float64) - gradient.astype(np.float64))
            noise[name] = max(noise[name], float(np.max(change, initial=0.0)))
    return Reference(losses, gradients, loss_noise, noise)


def run_gradients(
    step: TracedStep, batch: Mapping[str, npt.NDArray[Any]]
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """The losses by name and the gradients by parameter, the variables restored."""
    with restored(step):
        results = call_gradients(step, batch)
    arrays = [np.asarray(result.numpy()) for result in results]
    names = ["loss", *step.objective.named]
    losses = dict(zip(names, arrays[: len(names)], strict=True))
    return losses, {p.name: array for p, array in zip(step.trained, arrays[len(names) :], strict=True)}


def call_gradients(step: TracedStep, batch: Mapping[str, npt.NDArray[Any]]) -> list[Any]:
    """The losses and gradients as tensors; statistics and seeds advance.

    Noise that TensorFlow would draw from a state of its own comes from the seed of the step.
    """
    if step.noise is None:
        return list(step.functions["gradients"](*(tf.constant(batch[entry.name]) for entry in step.batch)))
    named = step.noise.gradients
    variables = {p.name: p.resource for p in step.parameters}
    variables |= {v.name: v.variable for v in step.optimizer_variables}
    values = [tf.constant(batch[n]) if n in batch else variables[n].read_value() for n in named.inputs]
    results = dict(zip(named.outputs, Interpreter(named.graph)(values), strict=True))
    for name, value in results.items():
        if name.startswith("new/"):
            variables[name.removeprefix("new/")].assign(value)
    return [value for name, value in results.items() if not name.startswith("new/")]


@contextmanager
def restored(step: TracedStep) -> Iterator[None]:
    """Put every variable of the step back at the end: seeds, statistics and optimizer state move in any run."""
    variables = [v for p in step.parameters for v in ([p.resource] if p.state is p.resource else [p.resource, p.state])]
    variables += [v.variable for v in step.optimizer_variables]
    before = [variable.numpy() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)


def _moved(array: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    """The array with each element moved by up to one unit in the last place; whole numbers stay: they may index."""
    if not tf.as_dtype(array.dtype).is_floating:
        return array
    exact = array.astype(np.float64)
    if np.array_equal(exact, np.rint(exact)):
        return array
    one_unit = 2 * unit_roundoff(array.dtype)
    return (exact * (1.0 + one_unit * rng.uniform(-1.0, 1.0, array.shape))).astype(array.dtype)
