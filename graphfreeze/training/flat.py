"""Small parameters are updated as one: what the optimizer sees of them is a flat variable, one behind the other.

An update is about a dozen operations for each variable, and for small ones the operations cost, not the numbers. So one
update is made for all of them, and the state of the optimizer is as flat. That gives the same numbers where the update
of an element depends on that element alone, or on norms over all gradients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.training.arguments import Configured
from graphfreeze.training.constraints import Constraint
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.optimizers import ELEMENTWISE, STARTS_APART, has_no_decay

__all__ = ["FlatVariable", "Target", "drop_inputs_and_outputs", "make_flat"]

_NAME = "flat"
_MOST_ELEMENTS = 8192
"""What is larger is updated by itself: to copy it into one tensor and out again takes longer than the operations do."""
_HIGHEST_RANK = 3
"""Filters of convolutions are kept in another layout, and would have to be transposed."""


@dataclass(frozen=True)
class Target:
    """A variable that the optimizer updates.

    Attributes:
        name: Its name in the artifact.
        variable: The `tf.Variable`.
        mask: Which elements train, broadcastable to the variable; None where all do.
        constraint: What the variable becomes at the end of a step, where it has a constraint.
    """

    name: str
    variable: Any
    mask: npt.NDArray[np.bool_] | None
    constraint: Constraint | None = None

    @property
    def elements(self) -> int:
        """How many elements the variable has."""
        return int(np.prod(self.variable.shape.as_list(), dtype=np.int64))


@dataclass(frozen=True)
class FlatVariable:
    """Several targets, one behind the other. It holds their values within a step alone.

    Attributes:
        name: What the optimizer's states of it are named by.
        target: What the optimizer updates in their place; its name is one of its own in the step.
        members: The targets.
        without_decay: Whether weight decay leaves them out.
    """

    name: str
    target: Target
    members: tuple[Target, ...]
    without_decay: bool = False

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """Name and number of elements of each member, in order."""
        return tuple((member.name, member.elements) for member in self.members)

    def join(self, tensors: Sequence[Any]) -> Any:
        """One flat tensor of a tensor for each member."""
        return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)

    def take_values(self) -> None:
        """Take over what the members hold."""
        self.target.variable.assign(self.join([member.variable.read_value() for member in self.members]))

    def give_values(self) -> None:
        """Let the members hold their parts."""
        pieces = tf.split(self.target.variable.read_value(), [size for _, size in self.parts])
        for member, piece in zip(self.members, pieces, strict=True):
            member.variable.assign(tf.reshape(piece, member.variable.shape))


def make_flat(optimizer: Configured, targets: Sequence[Target], taken: set[str]) -> list[FlatVariable]:
    """Flat variables for the small targets, one for each dtype; none where the optimizer must see them one by one.

    Args:
        optimizer: The optimizer of the targets.
        targets: The targets.
        taken: What has a name in the step; that of each flat variable comes to it.
    """
    if optimizer.name not in ELEMENTWISE or optimizer.arguments.get("clipnorm") is not None:
        return []
    alike: dict[tuple[str, bool], list[Target]] = defaultdict(list)
    for target in targets:
        small = target.elements <= _MOST_ELEMENTS and target.variable.shape.rank <= _HIGHEST_RANK
        if small and target.constraint is None:
            alike[target.variable.dtype.name, has_no_decay(optimizer, target.name)].append(target)
    groups = {kind: members for kind, members in alike.items() if len(members) > 1}
    names = {target.name for target in targets}
    made = []
    for (dtype, without_decay), members in groups.items():
        name = _NAME if len({kind[0] for kind in groups}) == 1 else f"{_NAME}_{dtype}"
        if without_decay:
            name += "_without_decay"
        name = _unlike(name, names)
        if optimizer.name in STARTS_APART:
            # The members may hold nothing yet, and what it holds before a step is nowhere used.
            value = tf.zeros([sum(member.elements for member in members)], dtype)
        else:
            value = tf.concat([tf.reshape(member.variable, [-1]) for member in members], 0)
        target = Target(_unlike(name, taken), tf.Variable(value, name=name), _mask(members))
        names.add(name)
        taken.add(target.name)
        made.append(FlatVariable(name, target, tuple(members), without_decay))
    return made


def _unlike(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _mask(members: Sequence[Target]) -> npt.NDArray[np.bool_] | None:
    if all(member.mask is None for member in members):
        return None
    whole = [
        np.broadcast_to(np.True_ if member.mask is None else member.mask, member.variable.shape.as_list())
        for member in members
    ]
    return np.concatenate([mask.ravel() for mask in whole])


def drop_inputs_and_outputs(named: NamedGraph, variables: Sequence[str]) -> None:
    """Leave out what a graph takes and gives of variables that hold values within it alone, in place."""
    graph = named.graph
    inputs = [(name, edge) for name, edge in zip(named.inputs, graph.inputs, strict=True) if name not in variables]
    named.inputs, graph.inputs = [name for name, _ in inputs], [edge for _, edge in inputs]
    named.drop_outputs([f"new/{name}" for name in variables])
