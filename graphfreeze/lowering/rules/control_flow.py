"""Loops and branches. What is known when the graph is lowered leaves nothing of them behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from graphfreeze.lowering.branches import absent, lower_branches
from graphfreeze.lowering.conditional_loop import lower_conditional
from graphfreeze.lowering.counted_loop import lower_counted
from graphfreeze.lowering.loop_variables import counters, invariants
from graphfreeze.lowering.numbers import static
from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.stacking import RaggedListsError
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.trip_count import trip_count
from graphfreeze.training.graph import Edge, Graph, Operation


@special("While", "StatelessWhile")
def _while(node: Node) -> list[Tensor]:
    """A loop: a Scan where the number of iterations is known or a size (its body alone for one), else a Loop."""
    unchanged = invariants(node.operation)
    steps = counters(node.operation, node.inputs, node.lowering.sizes)
    trips = trip_count(node, unchanged, steps)
    if trips is None:
        return lower_conditional(node, unchanged)
    if static(trips) == 0:
        return list(node.inputs)
    if static(trips) == 1:
        return node.lowering.run(node.operation.bodies["body"], node.inputs)
    lists = [tensor.tensor_list for tensor in node.inputs if tensor.tensor_list is not None]
    if any(one.length is None for one in lists):
        return lower_conditional(node, unchanged)
    try:
        return lower_counted(node, trips, unchanged, steps)
    except RaggedListsError:
        return lower_conditional(node, unchanged)


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
        raise CannotLower(
            "which branch is taken follows the sizes of the batch; a fixed or data-dependent choice is covered"
        )
    return truths.pop()


@special("Case", "StatelessCase")
def _case(node: Node) -> list[Tensor]:
    """The branch that is taken: one If after another where its index is computed."""
    index = node.inputs[0]
    if index.missing:
        return node.lowering.missing(node.operation, index.missing)
    branches: Sequence[Graph] = list(node.operation.bodies.values())
    if index.constant is None and len(branches) > 1:
        return _chain(node, branches)
    number = int(index.constant) if index.constant is not None else 0
    chosen = branches[number if 0 <= number < len(branches) else -1]
    return node.lowering.run(chosen, node.inputs[1:])


def _chain(node: Node, branches: Sequence[Graph]) -> list[Tensor]:
    """One If after another, each of which takes a branch or leaves it to the next; the last branch is for all else."""
    number = node.value(node.inputs[0])
    flags = [
        node.lowering.tensor(node.emit("Equal", number, np.array(k, np.int32)), np.bool_, [])
        for k in range(len(branches) - 1)
    ]
    otherwise = branches[-1]
    for branch in reversed(branches[1:-1]):
        inputs = [Edge(edge.name, edge.dtype, edge.shape) for edge in otherwise.inputs]
        flag = Edge("taken", tf.bool, ())
        given = inputs[: len(branch.inputs)]
        operation = Operation("If", node.operation.name, [flag, *inputs])
        then = Graph([*branch.inputs, *_unused(inputs[len(given) :])], branch.operations, branch.outputs)
        operation.bodies = {"then_branch": then, "else_branch": otherwise}
        operation.outputs = [Edge(e.name, e.dtype, e.shape, operation) for e in node.operation.outputs]
        otherwise = Graph([*inputs, flag], [operation], list(operation.outputs))
    first, arguments = branches[0], node.inputs[1:]
    extra = [Edge("taken", tf.bool, ()) for _ in flags[1:]]
    then = Graph([*first.inputs, *extra], first.operations, first.outputs)
    chained = Node(node.lowering, node.operation, [flags[0], *arguments, *reversed(flags[1:])], node.outputs)
    return lower_branches(chained, node.value(flags[0]), then, otherwise)


def _unused(edges: Sequence[Edge]) -> list[Edge]:
    return [Edge(edge.name, edge.dtype, edge.shape) for edge in edges]


@special("OptionalNone")
def _optional_none(node: Node) -> list[Tensor]:
    """What one branch keeps for the gradient of the other: nothing."""
    return [absent(len(node.lowering.samples))]


@special("OptionalFromValue", "OptionalGetValue")
def _optional(node: Node) -> list[Tensor]:
    """What a branch keeps for its gradient: the value itself."""
    return list(node.inputs)
