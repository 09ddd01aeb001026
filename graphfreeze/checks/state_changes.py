"""Whether a traced function may leave anything changed behind: a variable, a table, a generator of random numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_def_registry

__all__ = ["may_change_state"]

# TensorFlow calls operations stateful that take a resource, or whose functions may. These change nothing themselves.
_CHANGING_NOTHING = frozenset(
    {
        "Assert",
        "Case",
        "If",
        "LookupTableFindV2",
        "PartitionedCall",
        "ReadVariableOp",
        "ResourceGather",
        "ResourceGatherNd",
        "StatefulPartitionedCall",
        "VariableShape",
        "While",
    }
)

_ASSIGNMENTS = frozenset({"AssignAddVariableOp", "AssignSubVariableOp", "AssignVariableOp"})


def may_change_state(function: Any, restored: Collection[Any]) -> bool:
    """Whether a `ConcreteFunction`, with all that it calls, holds an operation that is not known to change nothing.

    Args:
        function: The function.
        restored: The handles of variables whose values are put back afterwards. If the function takes no other
            resource, its assignments change nothing that lasts.
    """
    graph_def = function.graph.as_graph_def()
    library = {definition.signature.name: definition for definition in graph_def.library.function}
    harmless = _CHANGING_NOTHING | library.keys()
    known = {id(handle) for handle in restored}
    if all(id(tensor) in known for tensor in function.captured_inputs if tensor.dtype == tf.resource):
        harmless |= _ASSIGNMENTS
    bodies = [graph_def.node, *(definition.node_def for definition in library.values())]
    return any(
        not (library.keys() >= set(_called(node)) and (node.op in harmless or _is_stateless(node.op)))
        for nodes in bodies
        for node in nodes
    )


def _is_stateless(operation: str) -> bool:
    definition = op_def_registry.get(operation)
    return definition is not None and not definition.is_stateful


def _called(node: Any) -> Iterator[str]:
    """The functions that a node calls."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name
