"""One step of the optimizers, traced: what they make of gradients, with every frozen element held where it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf

from graphfreeze.training.chosen_optimizers import ChosenOptimizer, ChosenOptimizers
from graphfreeze.training.flat import FlatVariable, Target, make_flat
from graphfreeze.training.keras_optimizer import OptimizerVariable, Updated, build_optimizer
from graphfreeze.training.optimizers import has_no_decay
from graphfreeze.training.row_division import dividing_rows_only

__all__ = ["Target", "Update", "trace_update"]


@dataclass(frozen=True)
class Update:
    """The traced update.

    Attributes:
        function: The `ConcreteFunction`: takes a gradient for each target, in their order; see `gradient_names`.
        variables: The optimizers' variables.
        flat: What holds several targets during the update.
    """

    function: Any
    variables: tuple[OptimizerVariable, ...]
    flat: tuple[FlatVariable, ...] = ()


def trace_update(
    optimizers: ChosenOptimizers,
    targets: Sequence[Target],
    *,
    by_rows: Mapping[str, Any] | None = None,
    flat: bool = False,
) -> Update:
    """Make the optimizers and trace one step of them.

    Args:
        optimizers: The optimizers, each of which is for some of the targets; see `ChosenOptimizers.require_parameters`.
        targets: What they update; where every optimizer is one of `STARTS_APART`, they need not hold values.
        by_rows: Targets whose gradient comes as rows and their indices, and the dtype of these indices.
        flat: Whether small targets are updated as one, where that gives the same numbers.

    Raises:
        UsageError: The arguments of an optimizer do not fit.
    """
    by_rows = by_rows or {}
    optimizers = optimizers.scaled()
    taken = {target.name for target in targets}
    shares = [
        _share(optimizer, optimizers, targets, by_rows, taken if flat else None) for optimizer in optimizers.given
    ]
    joined = [variable for share in shares for variable in share.joined]
    updated = [target for share in shares for target in share.updated]
    before: dict[str, Any] = {}
    made, variables = build_optimizer(
        [(share.optimizer, share.for_keras(before)) for share in shares], optimizers.loss_scale
    )

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
    with dividing_rows_only():
        traced = tf.function(apply_gradients, autograph=False).get_concrete_function(*specs)
    return Update(traced, tuple(variables), tuple(joined))


@dataclass(frozen=True)
class _Share:
    """What one optimizer updates: flat variables, and targets by themselves."""

    optimizer: ChosenOptimizer
    joined: Sequence[FlatVariable]
    alone: Sequence[Target]

    @property
    def updated(self) -> list[Target]:
        return [*(variable.target for variable in self.joined), *self.alone]

    def for_keras(self, before: Mapping[str, Any]) -> list[Updated]:
        """What Keras is told of them; `before` will hold the values before the step."""
        flat = [
            Updated(one.name, one.target.variable, parts=one.parts, decays=not one.without_decay) for one in self.joined
        ]
        alone = [
            Updated(
                target.name,
                target.variable,
                None if target.constraint is None else partial(_constrained, target, before),
                decays=not has_no_decay(self.optimizer.configured, target.name),
            )
            for target in self.alone
        ]
        return [*flat, *alone]


def _share(
    optimizer: ChosenOptimizer,
    optimizers: ChosenOptimizers,
    targets: Sequence[Target],
    by_rows: Mapping[str, Any],
    taken: set[str] | None,
) -> _Share:
    """What one of the optimizers updates; with `taken`, the names in the step, small targets are joined."""
    own = [target for target in targets if optimizers.of(target.name) is optimizer]
    whole = [target for target in own if target.name not in by_rows]
    joined = [] if taken is None else make_flat(optimizer.configured, whole, taken)
    members = {member.name for variable in joined for member in variable.members}
    return _Share(optimizer, joined, [target for target in own if target.name not in members])


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
