"""The optimizers of Keras, by name, and what each of their variables is for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, construct, parse_configured, snake_case
from graphfreeze.training.loss_scale import LossScale, with_loss_scale
from graphfreeze.training.schedules import with_schedule
from graphfreeze.training.untouched import untouched_zeros

__all__ = [
    "ELEMENTWISE",
    "LEARNING_RATE",
    "NO_DECAY",
    "OPTIMIZERS",
    "STARTS_APART",
    "OptimizerVariable",
    "build_optimizer",
    "has_no_decay",
    "parse_optimizer",
]

LEARNING_RATE = "learning_rate"
"""The name of the hyperparameter in the artifact."""

NO_DECAY = "exclude_from_weight_decay"
"""An argument that Keras has as a method."""

_NOT_OFFERED = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
"""The base class, and wrappers of other optimizers; that which scales the loss is an argument, `loss_scale=dynamic`."""


def _classes() -> dict[str, str]:
    found = {}
    for name in dir(keras.optimizers):
        item = getattr(keras.optimizers, name)
        if isinstance(item, type) and issubclass(item, keras.optimizers.Optimizer) and name not in _NOT_OFFERED:
            found[snake_case(name.replace("AdamW", "Adamw"))] = name
    return found


OPTIMIZERS: dict[str, str] = _classes()
"""Every optimizer of keras.optimizers that is offered: its name in snake case, and its class."""

ELEMENTWISE = frozenset(
    {
        "adadelta",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "ftrl",
        "lion",
        "nadam",
        "rmsprop",
        "schedule_free_adamw",
        "sgd",
    }
)
"""Those whose new value and state of an element depend on that element alone, or on norms of gradients besides, in
which zeros do not count: elements that never train can be left out."""


STARTS_APART = ELEMENTWISE - {"schedule_free_adamw"}
"""Those of which no state starts at the values of the parameters."""


@dataclass(frozen=True)
class OptimizerVariable:
    """One variable of an optimizer.

    Attributes:
        name: Its name in the artifact: `adam/dense/kernel/momentum`, `adam/iteration`, `learning_rate`.
        parameter: The name of the parameter whose slot it is, or None.
        variable: The `tf.Variable`.
        parts: Where it is the slot of several parameters, one behind the other: name and number of elements of each.
    """

    name: str
    parameter: str | None
    variable: Any
    parts: tuple[tuple[str, int], ...] = ()


def parse_optimizer(text: str) -> Configured:
    """Parse `NAME[:key=value,...]`."""
    return parse_configured(text, "optimizer", OPTIMIZERS)


def has_no_decay(configured: Configured, name: str) -> bool:
    """Whether `exclude_from_weight_decay` keeps weight decay away from a parameter: by its own name, as in Keras."""
    pattern = configured.arguments.get(NO_DECAY)
    return pattern is not None and re.search(str(pattern), name.rpartition("/")[2]) is not None


def build_optimizer(
    configured: Configured,
    parameters: Sequence[tuple[str, Any]],
    without_decay: Collection[str] = (),
    constraints: Mapping[str, Callable[[Any], Any]] | None = None,
) -> tuple[Any, list[OptimizerVariable]]:
    """Make the Keras optimizer and its variables for these parameters (pairs of name and `tf.Variable`).

    `constraints` are those of parameters by name, as Keras' variables have them.

    Weight decay leaves out those of the parameters that `exclude_from_weight_decay` matches, and `without_decay`.

    The optimizer remembers the parameters: `optimizer.apply(gradients)` updates them. The gradients are those of the
    loss itself, also where it is scaled (see `with_loss_scale`).

    Raises:
        UsageError: The arguments do not fit.
    """
    _check_pattern(configured)
    excluded = [has_no_decay(configured, name) or name in without_decay for name, _ in parameters]
    configured = Configured(configured.name, {k: v for k, v in configured.arguments.items() if k != NO_DECAY})
    configured = with_loss_scale(configured)
    scale = configured.arguments.get("loss_scale")
    if isinstance(scale, LossScale):
        arguments = {key: value for key, value in configured.arguments.items() if key != "loss_scale"}
        configured = Configured(configured.name, arguments)
    make = getattr(keras.optimizers, OPTIMIZERS[configured.name])
    # Left to itself, Keras counts the optimizers of a process (adam_1), and nodes would be named by the count.
    named = partial(make, name=configured.name)
    optimizer = construct(named, _as_keras_wants(with_schedule(configured)), "optimizer")
    slots: dict[int, tuple[str, str]] = {}
    variables = [_as_in_keras(name, variable) for name, variable in parameters]
    for variable, (name, _) in zip(variables, parameters, strict=True):
        variable.constraint = (constraints or {}).get(name)
    names = {id(variable): name for variable, (name, _) in zip(variables, parameters, strict=True)}
    if any(excluded):
        optimizer.exclude_from_weight_decay([v for v, is_out in zip(variables, excluded, strict=True) if is_out])
    make_slot = optimizer.add_variable_from_reference

    def remember(reference_variable: Any, name: str | None = None, initializer: Any = "zeros", **kwargs: Any) -> Any:
        # Most state starts at zero, and while the step is traced nothing writes it: it need not take memory.
        start = untouched_zeros if initializer == "zeros" else initializer
        made = make_slot(reference_variable, name, start, **kwargs)
        slots[id(made)] = (names[id(reference_variable)], name or "slot")
        return made

    optimizer.add_variable_from_reference = remember
    before = frozenset(vars(optimizer))
    whole = scale.around(optimizer) if isinstance(scale, LossScale) else optimizer
    whole.build(variables)
    slots = {**_slots_by_position(optimizer, before, list(names.values())), **slots}
    made = []
    own = {id(variable) for variable in optimizer.variables}
    for variable in whole.variables:
        if id(variable) not in own:
            parameter, name = None, f"{whole.name}/{variable.name}"
        elif id(variable) in slots:
            parameter, slot = slots[id(variable)]
            name = f"{configured.name}/{parameter}/{slot}"
        else:
            parameter, slot = None, _own_name(optimizer, variable)
            name = LEARNING_RATE if slot == LEARNING_RATE else f"{configured.name}/{slot}"
        made.append(OptimizerVariable(name, parameter, variable.value))
    return whole, made


def _own_name(optimizer: Any, variable: Any) -> str:
    """What a variable is to the optimizer. Keras numbers variables without a name through the process."""
    for attribute, item in vars(optimizer).items():
        if item is variable and variable.name.rstrip("_0123456789") == "variable":
            return str(attribute).strip("_")
    return str(variable.name)


def _check_pattern(configured: Configured) -> None:
    try:
        re.compile(str(configured.arguments.get(NO_DECAY, "")))
    except re.error as error:
        raise UsageError(
            f"{NO_DECAY}={configured.arguments[NO_DECAY]} is no regular expression: {error}. It is searched for in the "
            "names of parameters without their layers: bias|gamma|beta say"
        ) from error


def _as_keras_wants(configured: Configured) -> Configured:
    """Types that the text cannot tell: Keras would take a pattern's letters for patterns, and refuses a rate of 1."""
    arguments = dict(configured.arguments)
    if isinstance(arguments.get("exclude_layers"), str):
        arguments["exclude_layers"] = [arguments["exclude_layers"]]
    rate = arguments.get(LEARNING_RATE)
    if isinstance(rate, int) and not isinstance(rate, bool):
        arguments[LEARNING_RATE] = float(rate)
    return Configured(configured.name, arguments)


def _as_in_keras(name: str, variable: Any) -> Any:
    """A Keras variable around a loaded one, named as in the model: optimizers go by names and paths."""
    *scopes, own = name.split("/")
    with ExitStack() as stack:
        for scope in filter(None, scopes):
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(variable, dtype=variable.dtype.name, name=own, trainable=True)


def _slots_by_position(
    optimizer: Any, before: Collection[str], parameters: Sequence[str]
) -> dict[int, tuple[str, str]]:
    """Parameter and purpose of the variables that `build` put into lists of the optimizer, one for each parameter.

    Lists that were there before hold all variables of the optimizer: their length says nothing.
    """
    found = {}
    for attribute, items in vars(optimizer).items():
        if attribute not in before and isinstance(items, list) and len(items) == len(parameters):
            for item, parameter in zip(items, parameters, strict=True):
                found[id(item)] = (parameter, attribute.strip("_"))
    return found
