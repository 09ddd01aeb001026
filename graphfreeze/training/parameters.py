"""The variables of a model in its training step: which of them train, and what the artifact keeps of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.slices import TrainedSlices, find_trained_slices
from graphfreeze.selection.variable import Variable
from graphfreeze.training.constraints import Constraint
from graphfreeze.training.endpoint import Endpoint
from graphfreeze.training.optimizers import LEARNING_RATE
from graphfreeze.training.untouched import untouched_zeros

__all__ = ["Parameter", "find_parameters", "hold_frozen_values", "in_slices", "resolve"]


@dataclass(frozen=True)
class Parameter:
    """A variable of the model in the training step.

    Attributes:
        name: Its name in the artifact: the variable's name, or its object path where something else has that name.
        variable: What the SavedModel says of it.
        resource: The loaded `tf.Variable`.
        frozen: Its part of the freeze plan, or None.
        trains: Whether the step has a gradient for it.
        slices: Where whole slices of it are frozen: those that are left, of which alone its state in the artifact is.
        state: What the optimizer updates: `resource`, or a `tf.Variable` of the slices.
        constraint: What the variable becomes at the end of a step, where it has a constraint.
    """

    name: str
    variable: Variable
    resource: Any
    frozen: FrozenVariable | None
    trains: bool
    slices: TrainedSlices | None = None
    state: Any = None
    constraint: Constraint | None = None

    @property
    def is_constant(self) -> bool:
        """Whether it is wholly frozen: a constant of the graphs."""
        return self.frozen is not None and self.frozen.wholly_frozen

    def cut(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the artifact keeps of a value of the variable's shape, its gradient for example."""
        return value if self.slices is None else self.slices.cut(value)

    @property
    def mask(self) -> npt.NDArray[np.bool_] | None:
        """Which elements of `state` train, broadcastable; None where all do."""
        mask = None if self.frozen is None else self.cut(self.frozen.mask)
        return None if mask is None or mask.all() else mask


def find_parameters(
    loaded: Any, variables: Sequence[Variable], plan: FreezePlan, endpoint: Endpoint
) -> list[Parameter]:
    """The variables of a loaded SavedModel.

    Args:
        loaded: The SavedModel.
        variables: What is known of its variables.
        plan: What is frozen.
        endpoint: What is to be trained.
    """
    counts = Counter(variable.name for variable in variables)
    captured = {id(tensor) for tensor in endpoint.function.captured_inputs}
    parameters = []
    for variable in variables:
        resource = _loaded(loaded, variable)
        if not hasattr(resource, "handle"):
            continue
        frozen = plan.find(variable.object_path)
        # A compiled Keras 2 save holds its own optimizer's learning rate.
        ambiguous = counts[variable.name] > 1 or variable.name == LEARNING_RATE
        name = variable.object_path if ambiguous else variable.name
        trains = (
            variable.trainable
            and id(resource.handle) in captured
            and resource.dtype.is_floating
            and not (frozen is not None and frozen.wholly_frozen)
        )
        parameters.append(Parameter(name, variable, resource, frozen, trains, state=resource))
    return parameters


def _loaded(loaded: Any, variable: Variable) -> Any:
    """The loaded variable. What TensorFlow 1 saved has no paths: there, variables go by their names."""
    if isinstance(getattr(loaded, "graph", None), tf.Graph):
        return next((v for v in loaded.variables if v.name.removesuffix(":0") == variable.name), None)
    return resolve(loaded, variable.object_path)


def resolve(loaded: Any, object_path: str) -> Any:
    """The object of a loaded SavedModel at a path of its object graph."""
    found = loaded
    for part in object_path.split("/"):
        found = found[int(part)] if part.isdigit() and not hasattr(found, part) else getattr(found, part)
    return found


def hold_frozen_values(parameters: Sequence[Parameter]) -> None:
    """Let loaded variables hold their frozen values, so that a step starts from the effective ones."""
    for parameter in parameters:
        if (frozen := parameter.frozen) is not None:
            parameter.resource.assign(np.where(frozen.full_mask, parameter.resource.numpy(), frozen.value))


def in_slices(parameter: Parameter, *, has_value: bool) -> Parameter:
    """The parameter with a state that holds its trained slices alone, where whole slices of it are frozen.

    Args:
        parameter: The parameter.
        has_value: Whether its variable holds a value; otherwise the state is zero.
    """
    if parameter.frozen is None or not parameter.trains or parameter.constraint is not None:
        return parameter
    slices = find_trained_slices(parameter.frozen.mask)
    if slices is None:
        return parameter
    value = (
        slices.cut(parameter.resource.numpy())
        if has_value
        else untouched_zeros(slices.shape(parameter.variable.shape), parameter.resource.dtype)
    )
    state = tf.Variable(value, name=parameter.variable.name.rpartition("/")[2])
    return replace(parameter, slices=slices, state=state)
