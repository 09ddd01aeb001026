"""Do the manifest, the graphs, the state and the reference say the same? Each function returns what contradicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy.typing as npt

from graphfreeze.artifact.manifest import GRADIENT_BY_ROWS, GRAPH_NAMES, Manifest

__all__ = ["check_graphs", "check_manifest", "check_reference", "check_state"]


class _Tensor(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


def check_manifest(manifest: Manifest) -> list[str]:
    """Check that names are unique and that each graph's inputs and outputs are explained by the entries."""
    batch = [entry.name for entry in manifest.batch]
    state = [entry.name for entry in manifest.state]
    gradients = [f"gradient/{entry.name}" for entry in manifest.trainable_parameters]
    rows = [f"{kind}/{entry.name}" for entry in manifest.trainable_parameters for kind in GRADIENT_BY_ROWS]
    new = [f"new/{entry.name}" for entry in manifest.state if entry.updated]
    losses = {"loss", *manifest.output_losses}
    problems = [f"{name} is listed twice" for name in _duplicates([*batch, *state])]
    expected_inputs = {
        "train_step": {*batch, *state},
        "gradients": {*batch, *state},
        "apply_gradients": {*state, *gradients, *rows},
    }
    expected_outputs = {
        "train_step": {*losses, *new},
        "gradients": {*losses, *gradients, *rows, *new},
        "apply_gradients": set(new),
    }
    # What the forward pass assigns comes out of `gradients`, the rest out of `apply_gradients`.
    required_outputs = {
        "train_step": {*losses, *new},
        "gradients": {*losses, *gradients, *({*rows} & {*manifest.graphs["apply_gradients"].inputs})},
        "apply_gradients": {*new} - set(manifest.graphs["gradients"].outputs),
    }
    for name, expected in expected_inputs.items():
        graph = manifest.graphs[name]
        problems += [f"{graph.file} has the unknown input {n}" for n in graph.inputs if n not in expected]
        problems += [
            f"{graph.file} has the unknown output {n}" for n in graph.outputs if n not in expected_outputs[name]
        ]
        missing = required_outputs[name] - set(graph.outputs)
        problems += [f"{graph.file} lacks the output {n}" for n in sorted(missing)]
    for graph in manifest.graphs.values():
        problems += [f"{graph.file} lists {name} twice" for name in _duplicates([*graph.inputs, *graph.outputs])]
    forward = manifest.graphs["forward"]
    problems += [
        f"{forward.file} has the unknown output {n}" for n in forward.outputs if not n.startswith(("output/", "new/"))
    ]
    return problems


def check_graphs(manifest: Manifest, signatures: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> list[str]:
    """Check the inputs and outputs of the ONNX models against the manifest."""
    if problems := _same_names("graphs", GRAPH_NAMES, manifest.graphs) + _same_names("graphs", GRAPH_NAMES, signatures):
        return problems
    problems = check_manifest(manifest)
    for name, (inputs, outputs) in signatures.items():
        entry = manifest.graphs[name]
        if inputs != entry.inputs:
            problems.append(f"{entry.file} has the inputs {list(inputs)}, the manifest says {list(entry.inputs)}")
        if outputs != entry.outputs:
            problems.append(f"{entry.file} has the outputs {list(outputs)}, the manifest says {list(entry.outputs)}")
    return problems


def check_state(manifest: Manifest, state: Mapping[str, _Tensor]) -> list[str]:
    """Check names, shapes and dtypes of a state against the manifest."""
    if problems := _same_names("state", [entry.name for entry in manifest.state], state):
        return problems
    return [
        problem
        for entry in manifest.state
        for problem in _same_tensor(entry.name, state[entry.name], entry.stored_shape, entry.dtype)
    ]


def check_reference(manifest: Manifest, reference: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Check that a reference has what validation needs. More is allowed."""
    batch = [f"batch/{entry.name}" for entry in manifest.batch]
    trainable = manifest.trainable_parameters
    losses = ["loss", *manifest.output_losses]
    needed = [
        *batch,
        *losses,
        *(f"noise/{name}" for name in losses),
        *(f"{kind}/{entry.name}" for entry in trainable for kind in ("gradient", "noise")),
        *(
            f"{kind}/{entry.name}"
            for entry in trainable
            if f"roundoff/{entry.name}" in reference
            for kind in ("calm_noise", "slope_noise")
        ),
    ]
    if missing := [name for name in needed if name not in reference]:
        return [f"the reference lacks {name}" for name in missing]
    return [
        problem
        for entry in trainable
        for problem in _same_tensor(
            f"gradient/{entry.name}", reference[f"gradient/{entry.name}"], entry.whole_stored_shape, entry.dtype
        )
    ]


def _same_names(what: str, expected: Iterable[str], found: Iterable[str]) -> list[str]:
    expected, found = set(expected), set(found)
    return [f"{name} is missing from the {what}" for name in sorted(expected - found)] + [
        f"{name} is in the {what} but not in the manifest" for name in sorted(found - expected)
    ]


def _same_tensor(name: str, tensor: _Tensor, shape: tuple[int, ...], dtype: str) -> list[str]:
    if tuple(tensor.shape) == shape and tensor.dtype.name == dtype:
        return []
    return [f"{name} is {tensor.dtype.name}{list(tensor.shape)}, the manifest says {dtype}{list(shape)}"]


def _duplicates(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
