"""Plans for tiny models, and ways to run them that do not use the freeze pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan, FrozenVariable

from .models import Sample

__all__ = ["call_all", "frozen", "gradients", "loaded_variable", "make_plan", "merge", "run_session"]

Array = npt.NDArray[Any]


def frozen(model: SavedModel, name: str, mask: npt.NDArray[np.bool_], values: Array, form: Form) -> FrozenVariable:
    """A targeted variable of the model with that name, with a mask that may be broadcast."""
    variable = next(v for v in model.variables if v.name == name)
    full = np.broadcast_to(mask, variable.shape)
    return FrozenVariable(variable, mask, np.where(full, np.zeros((), values.dtype), values), form)


def make_plan(model: SavedModel, names: tuple[str, ...], form: Form, seed: int = 0) -> FreezePlan:
    """A plan that freezes about half of the elements of each variable at new values."""
    make = np.random.default_rng(seed)
    entries = []
    for name in names:
        variable = next(v for v in model.variables if v.name == name)
        values = make.normal(size=variable.shape).astype(variable.dtype)
        entries.append(frozen(model, name, make.random(variable.shape) > 0.5, values, form))
    return FreezePlan(tuple(entries))


def loaded_variable(loaded: Any, path: str) -> tf.Variable:
    """The variable at an object path of a loaded SavedModel."""
    for name in path.split("/"):
        loaded = loaded[int(name)] if name.isdigit() else getattr(loaded, name)
    return loaded


def merge(loaded: Any, plan: FreezePlan) -> None:
    """Assign a plan's frozen values to the variables of a loaded original."""
    for entry in plan.variables:
        variable = loaded_variable(loaded, entry.variable.object_path)
        variable.assign(np.where(entry.full_mask, variable.numpy(), entry.value))


def call_all(loaded: Any, sample: Sample) -> dict[str, Array]:
    """The outputs of all endpoints and signatures."""
    outputs = {name: call(loaded).numpy() for name, call in sample.calls.items()}
    for name, inputs in sample.signatures.items():
        results = loaded.signatures[name](**{key: tf.constant(value) for key, value in inputs.items()})
        outputs |= {f"signature {name} {key}": value.numpy() for key, value in results.items()}
    return outputs


def gradients(
    loaded: Any, sample: Sample, paths: tuple[str, ...], endpoints: Iterable[str] | None = None
) -> dict[str, list[Any]]:
    """Per endpoint, the gradients of a loss with respect to the variables at these object paths."""
    variables = [loaded_variable(loaded, path) for path in paths]
    found = {}
    for name in endpoints or sample.calls:
        call = sample.calls[name]
        with tf.GradientTape() as tape:
            output = call(loaded)
            loss = tf.reduce_sum(output * tf.cos(output))
        found[name] = tape.gradient(loss, variables)
    return found


def run_session(directory: Path, sample: Sample) -> dict[str, Array]:
    """The outputs of all signatures in a TensorFlow 1 session."""
    outputs: dict[str, Array] = {}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
        for name, inputs in sample.signatures.items():
            signature = meta_graph.signature_def[name]
            feeds = {signature.inputs[key].name: value for key, value in inputs.items()}
            fetches: Mapping[str, str] = {key: signature.outputs[key].name for key in sorted(signature.outputs)}
            results = session.run(fetches, feeds)
            outputs |= {f"signature {name} {key}": value for key, value in results.items()}
    return outputs
