"""Our gradients beside those of onnxruntime-training and TensorFlow, and what decides where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.reader import Artifact
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.validation.tolerance import compare, scale_of

__all__ = ["Finding", "compare_with_oracle"]

Arrays = Mapping[str, npt.NDArray[Any]]
_NEGLIGIBLE = 2.0**-20
"""The part of the largest gradient below which one is the rounding noise of what cancels: 16 units of float32."""
_STEPS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
"""Lengths of the finite differences; in float32 the best is not known before."""


@dataclass
class Finding:
    """What a case showed.

    Attributes:
        name: `group/name` of the case.
        outcome: `agrees`, `differs` or `no oracle` (it, or graphfreeze, cannot do the case).
        detail: Who is right where they differ; why there is no oracle.
        tensors: How many gradients were compared.
        zeros: How many of them are zero but for rounding.
        loss_error: Of the losses, relative.
        gradient_error: The largest relative difference of a gradient in the Euclidean norm, without the zeros.
        tensorflow_error: The same between TensorFlow's tape and onnxruntime-training.
    """

    name: str
    outcome: str = "no oracle"
    detail: str = ""
    tensors: int = 0
    zeros: int = 0
    loss_error: float | None = None
    gradient_error: float | None = None
    tensorflow_error: float | None = None
    differing: list[str] = field(default_factory=list)


def compare_with_oracle(directory: Path, finding: Finding) -> None:
    """Fill in what a prepared and derived case shows."""
    artifact = read_artifact(directory / "training")
    reference = artifact.reference
    with np.load(directory / "oracle.npz") as stored:
        oracle = {name: stored[name] for name in stored.files}
    loss_of = _Loss(artifact)
    ours = loss_of.outputs({})
    finding.loss_error = abs(float(oracle["loss"]) - float(ours["loss"])) / abs(float(ours["loss"]))
    names = [name for name in oracle if name != "loss"]
    largest = max((scale_of(reference[f"gradient/{name}"]) for name in names), default=0.0)
    errors, tensorflow_errors = [0.0], [0.0]
    for name in names:
        theirs, noise = oracle[name], float(reference[f"noise/{name}"])
        found = compare(ours[f"gradient/{name}"], theirs, largest=largest, noise=noise)
        beside = compare(reference[f"gradient/{name}"], theirs, largest=largest, noise=noise)
        if "zero" in (found.rule, beside.rule) or scale_of(theirs) <= _NEGLIGIBLE * largest:
            finding.zeros += 1
        else:
            errors.append(found.relative_l2)
            tensorflow_errors.append(beside.relative_l2)
        if not found.accepted:
            finding.differing.append(name)
    finding.tensors = len(names)
    finding.gradient_error, finding.tensorflow_error = max(errors), max(tensorflow_errors)
    finding.outcome = "differs" if finding.differing else "agrees"
    if finding.differing and (directory / "float64.npz").is_file():
        with np.load(directory / "float64.npz") as stored:
            finding.detail = _beside_float64(finding.differing, ours, oracle, {n: stored[n] for n in finding.differing})
    elif finding.differing:
        worst = max(finding.differing, key=lambda name: _distance(ours[f"gradient/{name}"], oracle[name]))
        finding.detail = _decide(loss_of, worst, ours[f"gradient/{worst}"], oracle[worst])


class _Loss:
    """The loss of the artifact, at parameters that are moved."""

    def __init__(self, artifact: Artifact) -> None:
        self._runner = GraphRunner(artifact, "gradients", choose_device("cpu"))
        batch = {n.removeprefix("batch/"): a for n, a in artifact.reference.items() if n.startswith("batch/")}
        self.values: dict[str, npt.NDArray[Any]] = {**artifact.state, **batch}

    def outputs(self, changed: Arrays) -> dict[str, npt.NDArray[Any]]:
        return self._runner({**self.values, **changed})


def _beside_float64(differing: list[str], ours: Arrays, oracle: Arrays, exact: Arrays) -> str:
    """How far either side is from TensorFlow's gradients in float64: rounding, or a mistake."""
    distances = [
        max(_distance(exact[name], side[prefix + name]) for name in differing)
        for side, prefix in ((ours, "gradient/"), (oracle, ""))
    ]
    return (
        f"{len(differing)} tensors, of which ours are at most {distances[0]:.1e} from TensorFlow's in float64 and its "
        f"{distances[1]:.1e}"
    )


def _decide(loss_of: _Loss, name: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> str:
    """Move the parameter along the difference of the two gradients, and see whose slope the loss has."""
    difference = ours.astype(np.float64) - theirs
    direction = difference / np.linalg.norm(difference)
    slopes = {"ours": float(np.sum(direction * ours)), "theirs": float(np.sum(direction * theirs))}
    found = []
    for length in _STEPS:
        ends = [
            float(
                loss_of.outputs({name: (loss_of.values[name] + sign * length * direction).astype(np.float32)})["loss"]
            )
            for sign in (1, -1)
        ]
        found.append((ends[0] - ends[1]) / (2 * length))
    # The length at which neighbouring ones agree best.
    best = min(range(1, len(found)), key=lambda i: abs(found[i] - found[i - 1]))
    slope = found[best]
    side = min(slopes, key=lambda key: abs(slopes[key] - slope))
    return (
        f"{name}: along the difference the loss rises by {slope:.4g} (finite differences), by {slopes['ours']:.4g} "
        f"with our gradient and by {slopes['theirs']:.4g} with its: {side} right"
    )


def _distance(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(one - other) / max(float(np.linalg.norm(one)), 1e-30))
