"""The optimizers of Keras, by name, and what each of their variables is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from graphfreeze.training.arguments import Configured, construct, parse_configured, snake_case

__all__ = ["LEARNING_RATE", "OPTIMIZERS", "OptimizerVariable", "build_optimizer", "parse_optimizer"]

LEARNING_RATE = "learning_rate"
"""The name of the hyperparameter in the artifact."""

_NOT_OFFERED = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}  # the base class, and wrappers of other optimizers


def _classes() -> dict[str, str]:
    found = {}
    for name in dir(keras.optimizers):
        item = getattr(keras.optimizers, name)
        if isinstance(item, type) and issubclass(item, keras.optimizers.Optimizer) and name not in _NOT_OFFERED:
            found["adamw" if name == "AdamW" else snake_case(name)] = name
    return found


OPTIMIZERS: dict[str, str] = _classes()
"""Every optimizer of keras.optimizers that is offered: its name in snake case, and its class."""


@dataclass(frozen=True)
class OptimizerVariable:
    """One variable of an optimizer.

    Attributes:
        name: Its name in the artifact: `adam/dense/kernel/momentum`, `adam/iteration`, `learning_rate`.
        parameter: The name of the parameter whose slot it is, or None.
        variable: The `tf.Variable`.
    """

    name: str
    parameter: str | None
    variable: Any


def parse_optimizer(text: str) -> Configured:
    """Parse `NAME[:key=value,...]`."""
    return parse_configured(text, "optimizer", OPTIMIZERS)


def build_optimizer(
    configured: Configured, parameters: Sequence[tuple[str, Any]]
) -> tuple[Any, list[OptimizerVariable]]:
    """Make the Keras optimizer and its variables for these parameters (pairs of name and `tf.Variable`)."""
    optimizer = construct(getattr(keras.optimizers, OPTIMIZERS[configured.name]), configured, "optimizer")
    names = {id(variable): name for name, variable in parameters}
    slots: dict[int, tuple[str, str]] = {}
    make_slot = optimizer.add_variable_from_reference

    def remember(reference_variable: Any, name: str | None = None, *args: Any, **kwargs: Any) -> Any:
        made = make_slot(reference_variable, name, *args, **kwargs)
        slots[id(made)] = (names[id(reference_variable)], name or "slot")
        return made

    optimizer.add_variable_from_reference = remember
    optimizer.build([variable for _, variable in parameters])
    variables = []
    for variable in optimizer.variables:
        if id(variable) in slots:
            parameter, slot = slots[id(variable)]
            name = f"{configured.name}/{parameter}/{slot}"
        else:
            parameter, slot = None, variable.name
            name = LEARNING_RATE if slot == LEARNING_RATE else f"{configured.name}/{slot}"
        variables.append(OptimizerVariable(name, parameter, variable.value))
    return optimizer, variables
