"""One of the models that are compared, at one endpoint: what it computes, and its gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.errors import UnsupportedError
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.batch import index_limits, random_inputs
from graphfreeze.training.endpoint import Endpoint, choose_endpoint
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.handle_data import known_handles
from graphfreeze.training.parameters import resolve
from graphfreeze.training.variable_uses import VariableSlot

__all__ = ["Batch", "Side"]

_BATCH_SIZE = 8

Batch = Mapping[str, npt.NDArray[Any]]


@dataclass
class Side:
    """One of the two models, at one endpoint. What is loaded must be kept: its functions do not keep it alive."""

    loaded: Any
    endpoint: Endpoint
    resources: dict[str, Any]
    function: Any = None

    @classmethod
    def load(cls, path: Path, name: str, variables: Sequence[Variable]) -> Side:
        """Load a model with one of its endpoints."""
        return cls.at(tf.saved_model.load(str(path)), name, variables)

    @classmethod
    def at(cls, loaded: Any, name: str, variables: Sequence[Variable]) -> Side:
        """One of the endpoints of a loaded model."""
        found = {variable.object_path: _find(loaded, variable.object_path) for variable in variables}
        resources = {path: resource for path, resource in found.items() if hasattr(resource, "handle")}
        return cls(loaded, choose_endpoint(loaded, name), resources)

    def assign(self, plan: FreezePlan) -> None:
        """Give the variables the plan's frozen values."""
        for frozen in plan.variables:
            resource = self.resources[frozen.variable.object_path]
            resource.assign(np.where(frozen.full_mask, resource.numpy(), frozen.value))

    def batch(self, data: Batch | None, seed: int) -> dict[str, npt.NDArray[Any]]:
        """The inputs from the data where it has all of them, else random ones."""
        entries = self.endpoint.inputs
        if data is not None and all(entry.name in data for entry in entries):
            return {entry.name: np.asarray(data[entry.name]) for entry in entries}
        slots = {id(r.handle): VariableSlot(path, r.dtype, tuple(r.shape)) for path, r in self.resources.items()}
        specs = [tf.TensorSpec(e.shape, e.dtype, name=e.name) for e in entries]
        traced = tf.function(self._call, autograph=False).get_concrete_function(*specs)
        try:
            named = functionalise(
                traced, [e.name for e in entries], [str(i) for i in range(len(traced.outputs))], slots
            )
            limits = index_limits(named)
        except UnsupportedError:
            limits = {}  # a table or an iterator: integers stay small
        return random_inputs(entries, limits, np.random.default_rng(seed), _BATCH_SIZE)

    def _call(self, *flat: Any) -> list[Any]:
        return self.endpoint(dict(zip((e.name for e in self.endpoint.inputs), flat, strict=True)))

    def run(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """The outputs, with the variables as they were."""
        before = {path: resource.numpy() for path, resource in self.resources.items()}
        results = self.step(batch)
        for path, resource in self.resources.items():
            resource.assign(before[path])
        return dict(zip((entry.name for entry in self.endpoint.outputs), results, strict=True))

    def step(self, batch: Batch) -> list[npt.NDArray[Any]]:
        """The outputs in their order; what the endpoint writes stays written."""
        flat = [tf.constant(batch[entry.name]) for entry in self.endpoint.inputs]
        return [result.numpy() for result in self._call(*flat)]

    def gradients(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        """The gradient of the sum of squared outputs for each variable that has one."""
        watched = {path: r for path, r in self.resources.items() if r.dtype.is_floating and r.trainable}
        flat = [tf.constant(batch[entry.name]) for entry in self.endpoint.inputs]
        if self.function is None:
            with known_handles():
                self.function = tf.function(self._gradients, autograph=False).get_concrete_function(*flat)
        before = {path: resource.numpy() for path, resource in self.resources.items()}
        found = self.function(*flat)
        for path, resource in self.resources.items():
            resource.assign(before[path])
        return {path: found[path].numpy() for path in watched if path in found}

    def _gradients(self, *flat: Any) -> dict[str, Any]:
        watched = {path: r for path, r in self.resources.items() if r.dtype.is_floating and r.trainable}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(watched.values()))
            floats = [tf.cast(o, tf.float32) for o in self._call(*flat) if o.dtype.is_floating]
            total = tf.add_n([tf.reduce_sum(tf.square(o)) for o in floats]) if floats else tf.constant(0.0)
        found = tape.gradient(total, list(watched.values()))
        return {
            path: tf.convert_to_tensor(gradient)
            for path, gradient in zip(watched, found, strict=True)
            if gradient is not None
        }


def _find(loaded: Any, object_path: str) -> Any:
    """The object at a path, maybe that of an optimizer's slot, OPTIMIZER/SLOT/VARIABLE; None where it is hidden."""
    with contextlib.suppress(AttributeError, LookupError, TypeError):
        return resolve(loaded, object_path)
    parts = object_path.split("/")
    for i in range(1, len(parts) - 1):
        with contextlib.suppress(AttributeError, LookupError, TypeError, ValueError):
            optimizer = resolve(loaded, "/".join(parts[:i]))
            return optimizer.get_slot(resolve(loaded, "/".join(parts[i + 1 :])), parts[i])
    return None
