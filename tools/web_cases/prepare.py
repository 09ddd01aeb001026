"""Makes the artifact of a case, its batches, and what `Trainer` makes of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

import graphfreeze
from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.reader import Artifact
from graphfreeze.artifact.tensors import write_tensors
from graphfreeze.selection.variable import numpy_dtype
from graphfreeze.validation.tolerance import unit_roundoff
from tools.web_cases.cases import WebCase, draw_batches

__all__ = ["Arrays", "Expected", "expect", "make_artifact", "reference_batch", "write_batches"]

Arrays = Mapping[str, npt.NDArray[Any]]
_MOVED_RUNS = 3


@dataclass(frozen=True)
class MovedRun:
    """A run that begins beside the initial state.

    Attributes:
        losses: Of each step.
        initial: The state before.
        state: The state after the last step.
    """

    losses: list[float]
    initial: Arrays
    state: Arrays


@dataclass(frozen=True)
class Expected:
    """What `Trainer` makes of an artifact and batches, and how sure that is.

    Attributes:
        artifact: The artifact.
        losses: Of each step.
        initial: The state before.
        state: The state after the last step.
        moved: Runs that begin one unit in the last place beside the initial state; of the
            coarser dtype, where the step computes in one.
        coarse: That dtype.
        milliseconds: Of the fastest step.
    """

    artifact: Artifact
    losses: list[float]
    initial: Arrays
    state: Arrays
    moved: list[MovedRun]
    milliseconds: float
    coarse: str | None = None


def make_artifact(case: WebCase, directory: Path) -> Path:
    """Export the model and rewrite it. Returns the OUT."""
    keras.utils.set_random_seed(0)
    graphfreeze.export(case.make(), directory / "saved_model")
    keras.backend.clear_session()
    (batch,) = draw_batches(case, 1)
    np.savez(directory / "reference.npz", **batch)  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    graphfreeze.rewrite(
        directory / "saved_model",
        directory / "rewritten",
        [graphfreeze.Selection("freeze", selector) for selector in case.freeze],
        loss=case.loss,
        optimizer=case.optimizer,
        endpoint=case.endpoint,
        data=directory / "reference.npz",
        device="cpu",
    )
    return directory / "rewritten"


def write_batches(path: Path, batches: Sequence[Arrays]) -> None:
    """Write what `drive.mjs` reads: `STEP/NAME`."""
    write_tensors(
        path, {f"{step}/{name}": array for step, batch in enumerate(batches) for name, array in batch.items()}
    )


def reference_batch(out: Path) -> dict[str, npt.NDArray[Any]]:
    """The batch that the documented programs train on."""
    reference = read_artifact(out).reference
    return {name.removeprefix("batch/"): array for name, array in reference.items() if name.startswith("batch/")}


def expect(out: Path, batches: Sequence[Arrays], coarse: str | None = None) -> Expected:
    """Train with `Trainer` on the CPU: as it is, and from states that are as good up to rounding."""
    artifact = read_artifact(out)
    trainer = graphfreeze.Trainer(artifact, device="cpu")
    initial = trainer.state_dict()
    losses, seconds = [], []
    for batch in batches:
        begin = time.perf_counter()
        losses.append(trainer.step(batch))
        seconds.append(time.perf_counter() - begin)
    moved: list[MovedRun] = []
    for seed in range(_MOVED_RUNS):
        start = _move(trainer, initial, seed, coarse)
        beside = graphfreeze.Trainer(artifact, device="cpu", state=start)
        moved.append(MovedRun([beside.step(batch) for batch in batches], start, beside.state_dict()))
    return Expected(artifact, losses, initial, trainer.state_dict(), moved, 1000 * min(seconds), coarse)


def _move(trainer: graphfreeze.Trainer, initial: Arrays, seed: int, coarse: str | None) -> dict[str, npt.NDArray[Any]]:
    """The state with each trainable element moved to one side by a unit in its last place."""
    random = np.random.default_rng(seed)
    frozen = trainer.frozen
    state = dict(initial)
    for entry in trainer.artifact.manifest.trainable_parameters:
        value = initial[entry.name]
        sign = np.where(random.random(value.shape) < 0.5, -1, 1)
        if coarse is None:
            moved = np.nextafter(value, (sign * np.inf).astype(value.dtype))
        else:
            moved = (value * (1 + 2 * unit_roundoff(numpy_dtype(coarse)) * sign)).astype(value.dtype)
        part = None if frozen is None else frozen.partly.get(entry.name)
        state[entry.name] = moved if part is None else np.where(part.stored_frozen, value, moved)
    return state
