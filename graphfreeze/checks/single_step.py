"""Compares single optimizer steps: each starts from TensorFlow's own state and takes TensorFlow's own gradients.

Free-running steps drift apart without anything being wrong: Adam divides a gradient that is mere rounding noise by its
own size. From the same state and the same gradients, one step has nothing to amplify, and what remains is rounding.

TensorFlow's step is that of the whole variables, with the whole state of the optimizer, whatever the artifact keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.artifact import StateEntry, read_artifact
from graphfreeze.artifact.layout import to_stored
from graphfreeze.checks.reference import optimizer_gradients, restored, run_results
from graphfreeze.errors import ValidationError
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.training.traced_step import TracedStep
from graphfreeze.training.update import Target, Update, trace_update
from graphfreeze.validation.tolerance import unit_roundoff

__all__ = ["check_single_steps"]

_STEPS = 3
_ROUNDINGS = 16
"""How many roundings of the state a step may differ by; the longest update of Keras (Nadam's) has about a dozen."""
_CORRECTION = 2.0**-13
"""Bias corrections like 1 - 0.999**step lose ten bits at the first step, and the whole update with them: 2**-23 / 0.001
is the relative error that one rounding of the power makes in the update."""

Batch = Mapping[str, npt.NDArray[Any]]


def check_single_steps(step: TracedStep, batch: Batch, out: Path) -> dict[str, Any]:
    """Compare `apply_gradients.onnx` with TensorFlow over a few steps, each from TensorFlow's state.

    Args:
        step: The traced step; its variables are as before afterwards.
        batch: A batch.
        out: The directory of the artifact.

    Returns:
        The check for the report, with the largest error of every state as evidence.

    Raises:
        ValidationError: A state differs by more than rounding explains.
    """
    artifact = read_artifact(out)
    run = GraphRunner(artifact, "apply_gradients", choose_device("cpu"))
    update = _full_size_update(step)
    variables = {p.name: p.resource for p in step.parameters if not p.is_constant}
    variables |= {v.name: v.variable for v in (*step.optimizer_variables, *update.variables)}
    kept = {p.name: p.slices for p in step.parameters if p.slices is not None}
    entries = {entry.name: entry for entry in artifact.manifest.state}
    parts = {entry.name: _variables_of_parts(entry) for entry in artifact.manifest.state}

    def stored(value: Any, entry: StateEntry) -> npt.NDArray[Any]:
        of = kept.get(entry.parameter or entry.name) if entry.trained_slices is not None else None
        return to_stored(np.asarray(value) if of is None else of.cut(np.asarray(value)), entry)

    def in_layout(name: str, gradient: npt.NDArray[Any]) -> npt.NDArray[Any]:
        entry = entries.get(name.removeprefix("gradient/"))
        return gradient if entry is None else to_stored(gradient, entry)

    def in_parts(entry: StateEntry) -> list[npt.NDArray[Any]]:
        """What TensorFlow's variables hold now, as stored: of each variable that the entry is a state of."""
        if entry.parts is None:
            return [stored(variables[entry.name].numpy(), entry)]
        return [
            stored(variables[name].numpy(), entries[part.parameter]).ravel()
            for name, part in zip(parts[entry.name], entry.parts, strict=True)
        ]

    worst: dict[str, dict[str, Any]] = {}
    with restored(step):
        for number in range(1, _STEPS + 1):
            results = run_results(step, batch)
            before = {name: in_parts(entry) for name, entry in entries.items()}
            state = {name: values[0] if len(values) == 1 else np.concatenate(values) for name, values in before.items()}
            gradients = optimizer_gradients(step, results)
            outputs = run(state | {name: in_layout(name, value) for name, value in gradients.items()})
            update.function(*map(tf.constant, optimizer_gradients(step, results, whole=True).values()))
            for output, ours in outputs.items():
                entry = entries[output.removeprefix("new/")]
                ends = np.cumsum([part.elements for part in entry.parts or ()])[:-1]
                pieces = [ours] if entry.parts is None else np.split(ours, ends)
                for name, old, new, own in zip(
                    parts[entry.name], before[entry.name], in_parts(entry), pieces, strict=True
                ):
                    record = _compare(name, number, old, new, own)
                    if name not in worst or record["excess"] > worst[name]["excess"]:
                        worst[name] = record
    records = [worst[name] for name in sorted(worst)]
    failed = [record for record in records if record["excess"] > 1]
    check = {
        "name": "single optimizer steps equal TensorFlow's",
        "passed": not failed,
        "message": f"{len(records)} states over {_STEPS} steps, each from TensorFlow's state",
        "evidence": records,
    }
    if failed:
        found = max(failed, key=lambda record: record["excess"])
        raise ValidationError(
            f"one optimizer step from TensorFlow's state differs for {found['name']!r} at step {found['step']}: by "
            f"{found['error']:g}, allowed {found['allowed']:g}",
            {"checks": [check]},
        )
    return check


def _variables_of_parts(entry: StateEntry) -> list[str]:
    """The variables of Keras' optimizer that a state stands for: that of each parameter where it is flat."""
    if entry.parts is None:
        return [entry.name]
    optimizer, slot = entry.name.partition("/")[0], entry.name.rpartition("/")[2]
    return [f"{optimizer}/{part.parameter}/{slot}" for part in entry.parts]


def _full_size_update(step: TracedStep) -> Update:
    """TensorFlow's step on whole variables, each by itself, whatever the artifact keeps of them and how."""
    if all(p.slices is None for p in step.parameters) and not any(v.parts for v in step.optimizer_variables):
        return Update(step.functions["apply_gradients"], step.optimizer_variables)
    masks = {p.name: None if p.frozen is None else p.frozen.mask for p in step.trained}
    return trace_update(
        step.optimizers,
        [Target(p.name, p.resource, masks[p.name], p.constraint) for p in step.trained],
        by_rows=step.by_rows,
    )


def _compare(
    name: str, number: int, before: npt.NDArray[Any], after: npt.NDArray[Any], ours: npt.NDArray[Any]
) -> dict[str, Any]:
    if after.dtype.kind in "biu":
        error, allowed = float(np.count_nonzero(ours != after)), 0.0
    else:
        old, new, found = (x.astype(np.float64) for x in (before, after, ours))
        epsilon = 2 * unit_roundoff(after.dtype)
        size = max(float(np.max(np.abs(x), initial=0.0)) for x in (old, new))
        update = float(np.max(np.abs(new - old), initial=0.0))
        error = float(np.max(np.abs(found - new), initial=0.0))
        allowed = _ROUNDINGS * epsilon * size + max(_CORRECTION, 1024 * epsilon) * update
    excess = error / allowed if allowed else (0.0 if error == 0 else float("inf"))
    return {"name": name, "step": number, "error": error, "allowed": allowed, "excess": excess}
