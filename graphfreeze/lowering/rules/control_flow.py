"""Loops and branches. What is known when the graph is lowered leaves nothing of them behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphfreeze.lowering.branches import absent, lower_branches
from graphfreeze.lowering.conditional_loop import lower_conditional
from graphfreeze.lowering.counted_loop import lower_counted
from graphfreeze.lowering.loop_variables import counters, invariants, trip_count
from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Graph


@special("While", "StatelessWhile")
def _while(node: Node) -> list[Tensor]:
    """A loop: a Scan where the number of iterations is known (its body alone for one), else a Loop."""
    unchanged = invariants(node.operation)
    steps = counters(node.operation, node.inputs)
    trips = trip_count(node.operation, node.inputs, unchanged, steps)
    if trips is None:
        return lower_conditional(node, unchanged)
    if trips == 0:
        return list(node.inputs)
    if trips == 1:
        return node.lowering.run(node.operation.bodies["body"], node.inputs)
    return lower_counted(node, trips, unchanged, steps)


@special("If", "StatelessIf")
def _if(node: Node) -> list[Tensor]:
    """The branch that is taken where the predicate is known, otherwise an If."""
    branches = [node.operation.bodies["else_branch"], node.operation.bodies["then_branch"]]
    predicate = node.inputs[0]
    if predicate.missing:
        return node.lowering.missing(node.operation, predicate.missing)
    truth = _truth(predicate)
    if truth is not None:
        return node.lowering.run(branches[int(truth)], node.inputs[1:])
    value = node.value(predicate)
    if predicate.dtype != np.bool_:
        value = node.cast(value, np.bool_)
    return lower_branches(node, value, branches[1], branches[0])


def _truth(predicate: Tensor) -> bool | None:
    if predicate.known is None:
        return None
    truths = {bool(array.any()) if array.ndim else bool(array) for array in predicate.known}
    if len(truths) > 1:
        raise CannotLower("which branch is taken follows the batch size; a fixed or data-dependent choice is covered")
    return truths.pop()


@special("Case", "StatelessCase")
def _case(node: Node) -> list[Tensor]:
    """The branch that is taken; its index must be known."""
    index = node.inputs[0]
    if index.missing:
        return node.lowering.missing(node.operation, index.missing)
    if index.constant is None:
        raise CannotLower("which of its branches is taken is known only at run time; a known index is covered")
    branches: Sequence[Graph] = list(node.operation.bodies.values())
    number = int(index.constant)
    chosen = branches[number if 0 <= number < len(branches) else -1]
    return node.lowering.run(chosen, node.inputs[1:])


@special("OptionalNone")
def _optional_none(node: Node) -> list[Tensor]:
    """What one branch keeps for the gradient of the other: nothing."""
    return [absent(len(node.lowering.samples))]


@special("OptionalFromValue", "OptionalGetValue")
def _optional(node: Node) -> list[Tensor]:
    """What a branch keeps for its gradient: the value itself."""
    return list(node.inputs)
