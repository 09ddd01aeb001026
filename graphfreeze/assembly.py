"""A traced training step becomes what an artifact is made of: ONNX models, a manifest and the initial state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze import __version__
from graphfreeze.artifact.manifest import (
    BatchEntry,
    BatchRole,
    FrozenEntry,
    GraphEntry,
    LossEntry,
    Manifest,
    OptimizerEntry,
    PartEntry,
    SlicesEntry,
    StateEntry,
    StateRole,
)
from graphfreeze.artifact.tensors import Pending
from graphfreeze.lowering.filters import convolution_filters
from graphfreeze.lowering.model import Lowerer, filter_permutation
from graphfreeze.lowering.sizes import BATCH, LENGTH
from graphfreeze.training.batch import required_limits
from graphfreeze.training.endpoint import TensorEntry
from graphfreeze.training.parameters import Parameter
from graphfreeze.training.traced_step import TracedStep

__all__ = ["Assembly", "assemble"]

_LIBRARIES = ("tensorflow", "keras", "numpy", "onnx", "onnx-ir")


@dataclass(frozen=True)
class Assembly:
    """What `artifact.write_artifact` needs, but for the reference.

    Attributes:
        manifest: All of the manifest but the hashes.
        graphs: The ONNX models.
        state: The initial state, as stored, each tensor made when it is written.
    """

    manifest: Manifest
    graphs: Mapping[str, ir.Model]
    state: Mapping[str, Pending]

    def stored(self, name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A value in TensorFlow's layout, or its gradient, in the layout that the state `name` is stored in."""
        entry = self.manifest.find_state(name)
        if entry is None or entry.permutation is None:
            return value
        return np.ascontiguousarray(np.transpose(value, entry.permutation))


def assemble(step: TracedStep, *, opset: int, seed: int, native_noise: bool = False) -> Assembly:
    """Lower the graphs of the step and describe them.

    Args:
        step: The traced step.
        opset: The version of the default ONNX domain.
        seed: For the manifest: the seed of everything random.
        native_noise: Whether `train_step` draws from the runtime's own generator. The other graphs do not, so that
            gradients can be compared.

    Raises:
        UnsupportedOperationError: Operations of the step cannot be lowered.
    """
    filters = convolution_filters(step.graphs["gradients"])
    filters |= {v.name for v in step.optimizer_variables if v.parameter in filters and len(v.variable.shape) in (4, 5)}
    lowerer = Lowerer(opset=opset, filters=filters, constants=step.constants)
    graphs = {
        name: lowerer.lower(graph, name, native_noise=native_noise and name == "train_step")
        for name, graph in step.graphs.items()
    }
    entries = {
        name: GraphEntry(
            f"{name}.onnx",
            tuple(value.name or "" for value in model.graph.inputs),
            tuple(value.name or "" for value in model.graph.outputs),
        )
        for name, model in graphs.items()
    }
    updated = {output.removeprefix("new/") for output in entries["train_step"].outputs if output.startswith("new/")}
    used = updated.union(*(entry.inputs for entry in entries.values()))
    states = [_of_parameter(p, filters, updated) for p in step.parameters if not p.is_constant and p.name in used]
    sliced = {p.name: p for p in step.parameters if p.slices is not None}
    variables = {p.name: p.state for p in step.parameters if not p.is_constant and p.name in used}
    for v in step.optimizer_variables:
        if v.name not in used:
            continue
        role: StateRole = "hyperparameter" if v.is_hyperparameter else "optimizer_state"
        of = sliced.get(v.parameter or "")
        whole = of is not None and v.variable.shape == of.state.shape
        states.append(
            StateEntry(
                v.name,
                role,
                of.variable.shape if of is not None and whole else tuple(v.variable.shape),
                v.variable.dtype.name,
                v.name in updated,
                _permutation(v.name, filters, v.variable.shape.rank),
                parameter=v.parameter,
                trained_slices=_slices(of) if of is not None and whole else None,
                parts=tuple(PartEntry(*part) for part in v.parts) or None,
            )
        )
        variables[v.name] = v.variable
    limits = required_limits(step.graphs["gradients"])
    manifest = Manifest(
        graphfreeze=__version__,
        versions={library: metadata.version(library) for library in _LIBRARIES},
        opset=opset,
        endpoint=step.endpoint.name,
        forward_endpoint=step.forward_endpoint.name,
        losses=tuple(
            LossEntry(term.loss.loss.name, dict(term.loss.loss.arguments), term.loss.output, term.loss.weight)
            for term in step.objective.terms
        ),
        optimizers=tuple(
            OptimizerEntry(chosen.configured.name, dict(chosen.configured.arguments), chosen.parameters)
            for chosen in step.optimizers.given
        ),
        seed=seed,
        batch=(
            *(_batch_entry(entry, "input", limits) for entry in step.endpoint.inputs),
            *(_batch_entry(term.target, "target", limits) for term in step.objective.terms),
            *([_batch_entry(weights, "sample_weight", {})] if (weights := step.objective.sample_weight) else []),
        ),
        state=tuple(states),
        frozen=tuple(
            FrozenEntry(p.name, p.variable.object_path, p.frozen.elements, p.variable.shape, p.variable.dtype)
            for p in step.parameters
            if p.frozen is not None and p.is_constant
        ),
        graphs=entries,
    )
    made = Assembly(manifest, graphs, {})
    return Assembly(
        manifest, graphs, {name: _pending(made, name, variable, step) for name, variable in variables.items()}
    )


def _pending(assembly: Assembly, name: str, variable: Any, step: TracedStep) -> Pending:
    entry = assembly.manifest.find_state(name)
    assert entry is not None

    def value() -> npt.NDArray[Any]:
        step.restore_values()
        return assembly.stored(name, np.asarray(variable.numpy()))

    return Pending(np.dtype(variable.dtype.as_numpy_dtype), entry.stored_shape, value)


def _batch_entry(entry: TensorEntry, role: BatchRole, limits: Mapping[str, int]) -> BatchEntry:
    names = (LENGTH if axis else BATCH for axis in range(len(entry.shape)))
    shape = tuple(name if size is None else size for name, size in zip(names, entry.shape, strict=True))
    below = limits.get(entry.name) if np.dtype(entry.dtype).kind in "iu" else None
    return BatchEntry(entry.name, role, shape, entry.dtype, below)


def _of_parameter(parameter: Parameter, filters: set[str], updated: set[str]) -> StateEntry:
    variable, frozen = parameter.variable, parameter.frozen
    # Frozen elements of a statistic count too; what has none and does not train says nothing of elements.
    counted = variable.trainable or frozen is not None
    return StateEntry(
        parameter.name,
        "parameter" if variable.trainable else "model_state",
        variable.shape,
        variable.dtype,
        parameter.name in updated,
        _permutation(parameter.name, filters, len(variable.shape)),
        object_path=variable.object_path,
        trainable=parameter.trains if variable.trainable else None,
        elements=int(np.prod(variable.shape, dtype=np.int64)) if counted else None,
        frozen_elements=(frozen.frozen_elements if frozen is not None else 0) if counted else None,
        form=frozen.form if frozen is not None else None,
        constrained=True if parameter.trains and parameter.constraint is not None else None,
        trained_slices=_slices(parameter),
    )


def _slices(parameter: Parameter) -> SlicesEntry | None:
    return None if parameter.slices is None else SlicesEntry(parameter.slices.axis, len(parameter.slices))


def _permutation(name: str, filters: set[str], rank: int) -> tuple[int, ...] | None:
    return tuple(filter_permutation(rank)) if name in filters else None
