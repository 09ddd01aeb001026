"""The gradients of an artifact, as onnxruntime computes them in float32, at parameters of one's choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact import read_artifact, write_artifact
from graphfreeze.artifact.layout import to_stored, to_tensorflow
from graphfreeze.assembly import assemble
from graphfreeze.checks.reference import compute_reference
from graphfreeze.pipeline.training import stored_reference
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.training.traced_step import TracedStep
from tools.finite_difference_cases.exact_loss import Arrays

__all__ = ["OurGradients", "generic_point", "nudged"]

_SEED = 0
_OPSET = 18
_SPREAD = 0.1
"""By what part of its size a parameter is moved, and by how much one that is zero."""
_ONE_UNIT = 2.0**-23


class OurGradients:
    """The graph `gradients` of an artifact.

    Args:
        step: The traced step.
        batch: What the artifact is checked with when it is made.
        directory: Where the artifact is written.

    Raises:
        GraphfreezeError: The step cannot be lowered.
    """

    def __init__(self, step: TracedStep, batch: Arrays, directory: Path) -> None:
        assembly = assemble(step, opset=_OPSET, seed=_SEED)
        reference = stored_reference(assembly, compute_reference(step, batch, _SEED), batch)
        write_artifact(directory, assembly.manifest, assembly.graphs, assembly.state, reference)
        artifact = read_artifact(directory)
        self._runner = GraphRunner(artifact, "gradients", choose_device("cpu"))
        self._state = artifact.state
        self._entries = {entry.name: entry for entry in artifact.manifest.state}
        self._names = [parameter.name for parameter in step.trained]

    def __call__(self, values: Arrays) -> tuple[float, dict[str, npt.NDArray[Any]]]:
        """The loss and the gradients for a batch and parameters, which have TensorFlow's layout, as the gradients have.

        Args:
            values: The batch, and the states that are not as in the artifact.
        """
        stored = {n: to_stored(v, self._entries[n]) if n in self._entries else v for n, v in values.items()}
        outputs = self._runner({**self._state, **stored})
        gradients = {n: to_tensorflow(outputs[f"gradient/{n}"], self._entries[n]) for n in self._names}
        return float(np.asarray(outputs["loss"], np.float64).sum()), gradients


def generic_point(step: TracedStep, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """Values of the trained parameters, a little away from those that they have; what is frozen in them stays.

    New models have biases of 0 and scales of 1, where wrong terms can vanish and many values lie on kinks.
    """
    values = step.values()
    return {p.name: _spread(values[p.name], p.mask, rng) for p in step.trained}


def nudged(values: Arrays, rng: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    """The values with each number moved by up to one unit in the last place of float32; whole numbers stay."""
    return {name: _nudged(value, rng) for name, value in values.items()}


def _spread(value: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, rng: np.random.Generator) -> npt.NDArray[Any]:
    size = float(np.sqrt(np.mean(np.square(value, dtype=np.float64)))) or 1.0
    changed = (value + _SPREAD * size * rng.normal(size=value.shape)).astype(value.dtype)
    return changed if mask is None else np.where(mask, changed, value)


def _nudged(value: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
    if value.dtype.kind != "f" or np.array_equal(value, np.rint(value)):
        return value
    return (value * (1 + _ONE_UNIT * rng.uniform(-1, 1, value.shape))).astype(value.dtype)
