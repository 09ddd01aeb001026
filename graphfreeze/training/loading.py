"""Loads what a training step is traced from: two endpoints of a SavedModel and its variables, and nothing else."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable
from graphfreeze.training.constraints import find_constraints
from graphfreeze.training.endpoint import Endpoint, choose_endpoint, choose_forward_endpoint
from graphfreeze.training.parameters import Parameter, find_parameters, hold_frozen_values
from graphfreeze.training.stored_values import ReadValue, StoredValues

__all__ = ["LoadedModel", "load_model"]

_MOST_OPERATIONS = 1000
"""To look for what is not in use any more takes about as long as to load so many operations. Fewer may stay."""


@dataclass(frozen=True)
class LoadedModel:
    """What is used of a loaded SavedModel.

    Attributes:
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        parameters: The variables, which hold their frozen values where they hold any.
        stored: The values that they do not hold.
        root: What TensorFlow loaded, where more of it must stay in memory.
    """

    endpoint: Endpoint
    forward_endpoint: Endpoint
    parameters: list[Parameter]
    stored: StoredValues
    root: Any


def load_model(
    saved_model: Path,
    variables: Sequence[Variable],
    plan: FreezePlan,
    *,
    endpoint: str | None,
    forward_endpoint: str | None,
    read: ReadValue | None = None,
) -> LoadedModel:
    """Load a SavedModel for tracing.

    Args:
        saved_model: Its directory.
        variables: Its variables.
        plan: What is frozen.
        endpoint: The endpoint that trains.
        forward_endpoint: The endpoint of the inference graph.
        read: What gives the values that it stores. With it, the variables hold none where nothing else needs them.

    Raises:
        UsageError: There is no such endpoint.
        UnsupportedError: An endpoint takes or returns something that is not supported.
    """
    options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=read is not None)
    root = tf.saved_model.load(str(saved_model), options=options)
    trains = choose_endpoint(root, endpoint)
    infers = choose_forward_endpoint(root, forward_endpoint, trains)
    parameters = find_parameters(root, variables, plan, trains)
    constraints, of_path = find_constraints(root)
    parameters = [replace(p, constraint=of_path.get(p.variable.object_path)) for p in parameters]
    functions = [trains.function, infers.function, *([] if constraints is None else [constraints])]
    if _captures_other_resources(functions, parameters):
        if read is not None:
            # A table may hold what the checkpoint has for it.
            return load_model(saved_model, variables, plan, endpoint=endpoint, forward_endpoint=forward_endpoint)
    else:
        root = None
        _release_other_functions(functions)
    if read is None:
        hold_frozen_values(parameters)
    return LoadedModel(trains, infers, parameters, StoredValues(read), root)


def _captures_other_resources(functions: Sequence[Any], parameters: Sequence[Parameter]) -> bool:
    """Whether functions use tables or other resources, which live only as long as the loaded model does."""
    handles = {id(parameter.resource.handle) for parameter in parameters}
    captured = (tensor for function in functions for tensor in function.captured_inputs)
    return any(tensor.dtype == tf.resource and id(tensor) not in handles for tensor in captured)


def _release_other_functions(functions: Sequence[Any]) -> None:
    """Let go of all functions that were loaded with these and that these do not call.

    TensorFlow loads the functions of a file into one graph, which each of them keeps in memory, and with it all others:
    those that save and restore, and the other endpoints.
    """
    operations = 0
    for function in functions:
        graph = function.graph.outer_graph
        # A function that was traced here is in no graph of a file.
        if graph is None or not graph._is_function(function.name):
            continue
        together = [f for f in functions if f.graph.outer_graph is graph]
        used = {name for f in together for name in (tf.compat.as_str(f.name), *f.graph._functions)}
        for name in [name for name in graph._functions if name not in used]:
            operations += len(graph._functions[name].graph.get_operations())
            graph._remove_function(name)
    if operations >= _MOST_OPERATIONS:
        gc.collect()
