"""The Keras optimizer of a step, and what each of its variables is for. Of several, Keras makes one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from graphfreeze.errors import UsageError
from graphfreeze.training.arguments import Configured, construct
from graphfreeze.training.chosen_optimizers import ChosenOptimizer
from graphfreeze.training.loss_scale import LossScale
from graphfreeze.training.optimizers import LEARNING_RATE, NO_DECAY, OPTIMIZERS
from graphfreeze.training.schedules import with_schedule
from graphfreeze.training.untouched import untouched_zeros

__all__ = ["OptimizerVariable", "Updated", "build_optimizer"]


@dataclass(frozen=True)
class OptimizerVariable:
    """One variable of an optimizer.

    Attributes:
        name: Its name in the artifact: `adam/dense/kernel/momentum`, `adam/iteration`, `learning_rate`.
        parameter: The name of the parameter whose slot it is, or None.
        variable: The `tf.Variable`.
        parts: Where it is the slot of several parameters, one behind the other: name and number of elements of each.
        is_hyperparameter: Whether no step changes it, so that it may be set.
    """

    name: str
    parameter: str | None
    variable: Any
    parts: tuple[tuple[str, int], ...] = ()
    is_hyperparameter: bool = False


@dataclass(frozen=True)
class Updated:
    """What an optimizer updates.

    Attributes:
        name: What its slots are named by.
        variable: The `tf.Variable`.
        constraint: What it becomes at the end of a step, as Keras' variables have it.
        parts: Where it stands for several parameters, one behind the other: name and number of elements of each.
        decays: Whether weight decay takes it.
    """

    name: str
    variable: Any
    constraint: Callable[[Any], Any] | None = None
    parts: tuple[tuple[str, int], ...] = ()
    decays: bool = True


def build_optimizer(
    shares: Sequence[tuple[ChosenOptimizer, Sequence[Updated]]], loss_scale: LossScale | None = None
) -> tuple[Any, list[OptimizerVariable]]:
    """Make a Keras optimizer and its variables.

    The optimizer remembers what it updates: `optimizer.apply(gradients)` takes a gradient for each, in the order of the
    shares. The gradients are those of the loss itself, also where it is scaled (see `with_loss_scale`).

    Args:
        shares: The optimizers, and what each of them updates.
        loss_scale: By what the loss is multiplied.

    Raises:
        UsageError: The arguments do not fit.
    """
    singles = [_Single(chosen, updated) for chosen, updated in shares]
    inner = singles[0].optimizer if len(singles) == 1 else _several(singles)
    whole = inner if loss_scale is None else loss_scale.around(inner)
    whole.build([variable for single in singles for variable in single.variables])
    of_scale = [] if whole is inner else whole._variables
    scaling = [OptimizerVariable(f"{whole.name}/{variable.name}", None, variable.value) for variable in of_scale]
    return whole, [*scaling, *(made for single in singles for made in single.made())]


class _Single:
    """One Keras optimizer, and what each of its variables is for once it is built."""

    def __init__(self, chosen: ChosenOptimizer, updated: Sequence[Updated]) -> None:
        self._chosen = chosen
        self._updated = updated
        self._slots: dict[int, tuple[Updated, str]] = {}
        given = {k: v for k, v in chosen.configured.arguments.items() if k != NO_DECAY}
        if isinstance(given.get("loss_scale"), LossScale):
            del given["loss_scale"]
        configured = Configured(chosen.configured.name, given)
        make = getattr(keras.optimizers, OPTIMIZERS[configured.name])
        # Left to itself, Keras counts the optimizers of a process (adam_1), and nodes would be named by the count.
        named = partial(make, name=chosen.name)
        self.optimizer = construct(named, _as_keras_wants(with_schedule(configured)), "optimizer")
        self.variables = [_as_in_keras(one.name, one.variable) for one in updated]
        for variable, one in zip(self.variables, updated, strict=True):
            variable.constraint = one.constraint
        excluded = [variable for variable, one in zip(self.variables, updated, strict=True) if not one.decays]
        if excluded:
            self.optimizer.exclude_from_weight_decay(excluded)
        self._remember_slots()
        self._before = frozenset(vars(self.optimizer))

    def _remember_slots(self) -> None:
        of = {id(variable): one for variable, one in zip(self.variables, self._updated, strict=True)}
        make_slot = self.optimizer.add_variable_from_reference

        def remember(
            reference_variable: Any, name: str | None = None, initializer: Any = "zeros", **kwargs: Any
        ) -> Any:
            # Most state starts at zero, and while the step is traced nothing writes it: it need not take memory.
            start = untouched_zeros if initializer == "zeros" else initializer
            made = make_slot(reference_variable, name, start, **kwargs)
            self._slots[id(made)] = (of[id(reference_variable)], name or "slot")
            return made

        self.optimizer.add_variable_from_reference = remember

    def made(self) -> list[OptimizerVariable]:
        """Its variables."""
        slots = {**_slots_by_position(self.optimizer, self._before, self._updated), **self._slots}
        return [self._described(variable, slots.get(id(variable))) for variable in self.optimizer.variables]

    def _described(self, variable: Any, slot: tuple[Updated, str] | None) -> OptimizerVariable:
        if slot is None:
            own = _own_name(self.optimizer, variable)
            if own == LEARNING_RATE:
                return OptimizerVariable(self._chosen.learning_rate, None, variable.value, is_hyperparameter=True)
            return OptimizerVariable(f"{self._chosen.name}/{own}", None, variable.value)
        updated, purpose = slot
        name = f"{self._chosen.name}/{updated.name}/{purpose}"
        if not updated.parts:
            return OptimizerVariable(name, updated.name, variable.value)
        whole = variable.value.shape == updated.variable.shape
        return OptimizerVariable(name, None, variable.value, updated.parts if whole else ())


def _several(singles: Sequence[_Single]) -> Any:
    """Keras' optimizer that leaves each variable to one of several."""
    make = getattr(keras.optimizers, "MultiOptimizer", None)
    if make is None:
        raise UsageError(
            f"several optimizers in one step need keras.optimizers.MultiOptimizer, which Keras {keras.__version__} "
            "does not have: install Keras 3.15 or newer, or give one optimizer"
        )
    of = {id(variable): single.optimizer for single in singles for variable in single.variables}
    several = make(lambda variable: of[id(variable)], name="several")
    several._iterations = _NotCounted()
    return several


class _NotCounted:
    """In the place of the steps that Keras counts for several optimizers as a whole: each counts its own."""

    def assign_add(self, value: Any) -> None:
        """Count no step."""


def _own_name(optimizer: Any, variable: Any) -> str:
    """What a variable is to the optimizer. Keras numbers variables without a name through the process."""
    for attribute, item in vars(optimizer).items():
        if item is variable and variable.name.rstrip("_0123456789") == "variable":
            return str(attribute).strip("_")
    return str(variable.name)


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
    optimizer: Any, before: Collection[str], updated: Sequence[Updated]
) -> dict[int, tuple[Updated, str]]:
    """Owner and purpose of the variables that `build` put into lists of the optimizer, one for each that it updates.

    Lists that were there before hold all variables of the optimizer: their length says nothing.
    """
    found = {}
    for attribute, items in vars(optimizer).items():
        if attribute not in before and isinstance(items, list) and len(items) == len(updated):
            for item, one in zip(items, updated, strict=True):
                found[id(item)] = (one, attribute.strip("_"))
    return found
