"""One step of the optimizer, traced: what it makes of gradients, with every frozen element held where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import tensorflow as tf

from graphfreeze.training.arguments import Configured
from graphfreeze.training.flat import FlatVariable, Target, make_flat
from graphfreeze.training.optimizers import OptimizerVariable, build_optimizer

__all__ = ["Target", "Update", "trace_update"]


@dataclass(frozen=True)
class Update:
    """The traced update.

    Attributes:
        function: The `ConcreteFunction`: takes a gradient for each target, in their order; see `gradient_names`.
        variables: The optimizer's variables.
        flat: What holds several targets during the update.
    """

    function: Any
    variables: tuple[OptimizerVariable, ...]
    flat: tuple[FlatVariable, ...] = ()


def trace_update(
    optimizer: Configured, targets: Sequence[Target], *, by_rows: Mapping[str, Any] | None = None, flat: bool = False
) -> Update:
    """Make the optimizer and trace one step of it.

    Args:
        optimizer: Its name and arguments.
        targets: What it updates; where the optimizer is one of `STARTS_APART`, they need not hold values.
        by_rows: Targets whose gradient comes as rows and their indices, and the dtype of these indices.
        flat: Whether small targets are updated as one, where that gives the same numbers.

    Raises:
        UsageError: The optimizer's arguments do not fit.
    """
    by_rows = by_rows or {}
    joined = make_flat(optimizer, [target for target in targets if target.name not in by_rows]) if flat else []
    members = {member.name for variable in joined for member in variable.members}
    alone = [target for target in targets if target.name not in members]
    updated = [*(variable.target for variable in joined), *alone]
    without_decay = [variable.target.name for variable in joined if variable.without_decay]
    named = [(target.name, target.variable) for target in updated]
    before: dict[str, Any] = {}
    constraints = {t.name: partial(_constrained, t, before) for t in updated if t.constraint is not None}
    made, variables = build_optimizer(optimizer, named, without_decay, constraints)

    def apply_gradients(*tensors: Any) -> list[Any]:
        """After the step every frozen element is written back: its storage keeps its bits too.

        The bits come from before the step, where the state holds the frozen values: no constant is needed for them.
        """
        given = iter(tensors)
        of = {target.name: _gradient(target, given, by_rows) for target in targets}
        for variable in joined:
            variable.take_values()
            of[variable.target.name] = variable.join([of[member.name] for member in variable.members])
        masked = [target for target in updated if target.mask is not None]
        before.update({target.name: target.variable.read_value() for target in masked})
        made.apply([of[target.name] for target in updated])
        for target in masked:
            _put_back(target, before[target.name])
        for variable in joined:
            variable.give_values()
        return []

    specs = [spec for index, target in enumerate(targets) for spec in _specs(target, index, by_rows)]
    traced = tf.function(apply_gradients, autograph=False).get_concrete_function(*specs)
    by_name = {variable.target.name: variable for variable in joined}
    return Update(traced, tuple(_with_parts(v, by_name.get(v.parameter or "")) for v in variables), tuple(joined))


def _put_back(target: Target, before: Any) -> None:
    """Write the frozen elements."""
    target.variable.assign(tf.where(tf.constant(target.mask), target.variable, before))


def _constrained(target: Target, before: Mapping[str, Any], _: Any) -> Any:
    """What its constraint makes of a target whose frozen elements are as before the step."""
    if target.name in before:
        _put_back(target, before[target.name])
    assert target.constraint is not None
    return target.constraint()


def _specs(target: Target, index: int, by_rows: Mapping[str, Any]) -> list[Any]:
    shape, dtype = target.variable.shape, target.variable.dtype
    if target.name not in by_rows:
        return [tf.TensorSpec(shape, dtype, name=f"gradient_{index}")]
    rows = tf.TensorSpec([None, *shape[1:]], dtype, name=f"rows_{index}")
    return [rows, tf.TensorSpec([None], by_rows[target.name], name=f"indices_{index}")]


def _gradient(target: Target, tensors: Iterator[Any], by_rows: Mapping[str, Any]) -> Any:
    """The gradient of a target, of the next tensors."""
    if target.name not in by_rows:
        return next(tensors)
    rows, indices = next(tensors), next(tensors)
    return tf.IndexedSlices(rows, indices, tf.constant(target.variable.shape.as_list(), indices.dtype))


def _with_parts(variable: OptimizerVariable, of: FlatVariable | None) -> OptimizerVariable:
    """The variable with what its parts belong to, where it is the state of a flat variable."""
    if of is None:
        return variable
    whole = variable.variable.shape == of.target.variable.shape
    return replace(variable, parameter=None, parts=of.parts if whole else ())
