"""`train_step` is `gradients` followed by `apply_gradients`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.frozen import differing_bits
from graphfreeze.artifact.manifest import GRADIENTS
from graphfreeze.artifact.reader import Artifact
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.graph_runner import GraphRunner
from graphfreeze.validation.check import Check, conclude
from graphfreeze.validation.native_noise import find_native_noise
from graphfreeze.validation.tolerance import compare, scale_of, unit_roundoff

__all__ = ["check_composition"]

_OF_CHANGE = 1e-4  # as for gradients: what another order of summation may make of an update
_ROUNDINGS = 4.0  # how often a new state is rounded where the update itself is small


def check_composition(artifact: Artifact, device: Device, values: Mapping[str, npt.NDArray[Any]]) -> Check:
    """Run one step both ways from the initial state, and compare everything that is new.

    onnxruntime may not rearrange the graphs here: then both ways run the same kernels on the same numbers, and what
    remains is a difference of the graphs.

    Args:
        artifact: The artifact.
        device: Where to run.
        values: The batch and the state.
    """
    noise = find_native_noise(artifact, device)
    whole, first, second = (
        GraphRunner(artifact, graph, device, optimize=False) for graph in ("train_step", "gradients", "apply_gradients")
    )
    if noise is None:
        at_once, by_gradients = whole(values), first(values)
    else:
        by_gradients, at_once = noise.at_given_noise(values)
    gradients = {name: value for name, value in by_gradients.items() if name.startswith(GRADIENTS)}
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
        before = values.get(name.removeprefix("new/"))
        if before is not None and name.startswith("new/"):
            # A new state is judged by its change: a step that leaves out a small update must not pass.
            change = scale_of(expected.astype(np.float64) - before.astype(np.float64))
            allowed = _OF_CHANGE * change + _ROUNDINGS * unit_roundoff(expected.dtype) * scale_of(expected)
        else:
            allowed = compare(found, expected, largest=scale_of(expected)).allowed
        error = scale_of(found.astype(np.float64) - expected.astype(np.float64))
        if not error <= allowed:  # not so for NaN either
            problems.append(f"{name} differs by {error:.3g} (allowed {allowed:.3g})")
    found_text = f"{len(at_once)} tensors agree, {equal} of them bit for bit"
    return conclude("train_step equals gradients and apply_gradients", problems, found_text)
