"""`train_step` is `gradients` followed by `apply_gradients`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from graphfreeze.artifact.frozen import differing_bits
from graphfreeze.artifact.reader import Artifact
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.validation.check import Check, conclude
from graphfreeze.validation.tolerance import compare, scale_of

__all__ = ["check_composition"]


def check_composition(artifact: Artifact, device: Device, values: Mapping[str, npt.NDArray[Any]]) -> Check:
    """Run one step both ways from the initial state, and compare everything that is new.

    onnxruntime may not rearrange the graphs here: then both ways run the same kernels on the same numbers, and what
    remains is a difference of the graphs.

    Args:
        artifact: The artifact.
        device: Where to run.
        values: The batch and the state.
    """
    whole, first, second = (
        GraphRunner(artifact, graph, device, optimize=False) for graph in ("train_step", "gradients", "apply_gradients")
    )
    at_once = whole(values)
    by_gradients = first(values)
    gradients = {name: value for name, value in by_gradients.items() if name.startswith("gradient/")}
    # A parameter that the forward pass itself changes is updated from what it is after that.
    state = {name.removeprefix("new/"): value for name, value in by_gradients.items() if name.startswith("new/")}
    composed = {**by_gradients, **second({**values, **state, **gradients})}
    problems = []
    equal = 0
    for name, found in at_once.items():
        expected = composed[name]
        if not differing_bits(found, expected).any():
            equal += 1
            continue
        if found.dtype.kind in "biu":
            problems.append(f"{name} is {found.tolist()}, composed it is {expected.tolist()}")
            continue
        comparison = compare(found, expected, largest=scale_of(expected))
        if not comparison.accepted:
            problems.append(f"{name} differs by {comparison.error:.3g} (scale {comparison.scale:.3g})")
    found_text = f"{len(at_once)} tensors agree, {equal} of them bit for bit"
    return conclude("train_step equals gradients and apply_gradients", problems, found_text)
