"""Masks and frozen values that are variables: proven, and then taken out of the graph, as if they were constants.

A rewritten model may hold large masks and values as variables in its checkpoint, whose handles functions get as further
arguments. Here it is proven that at every call each further argument carries one and the same such variable, that both
loaders fill it with the tensor of one key, and that nothing but reads takes it. Then arguments, handles and reads give
place to constants that say where in the shards their bytes lie. What is left is compared as any other model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphfreeze.prover.bundle import read_bundle
from graphfreeze.prover.constants import STORED_MARK
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.stored_objects import SavedObjects, copied, locate
from graphfreeze.prover.stored_threads import Threads

__all__ = ["take_out_stored"]


def take_out_stored(before: Any, after: Any, original: Path, rewritten: Path) -> int:
    """Prove how a model uses the variables that hold masks and values, and put constants in their place.

    Args:
        before: The original's meta graph.
        after: The rewritten meta graph; it is changed.
        original: The original's directory.
        rewritten: The rewritten model's directory.

    Returns:
        How many such variables there are. With none, nothing is changed.

    Raises:
        VerificationError: Something about them cannot be proven.
    """
    functions = after.graph_def.library.function
    for nodes in (after.graph_def.node, *(function.node_def for function in functions)):
        for node in nodes:
            if "value" in node.attr and STORED_MARK in node.attr["value"].tensor.string_val:
                refuse("expected no constant that names a file, found one", node=node.name)
    if len(after.object_graph_def.nodes) <= len(before.object_graph_def.nodes):
        return 0
    stored = _take_out_objects(before.object_graph_def, after.object_graph_def)
    old, new = read_bundle(original), read_bundle(rewritten)
    objects = SavedObjects(old.objects(), new.objects(), stored)
    tensors = locate(stored, old, new, objects.keys)
    Threads(before, after, stored, tensors, objects).take_out()
    return len(stored)


def _take_out_objects(before: Any, after: Any) -> dict[int, tuple[tuple[str, str], Any]]:
    """The variables by object node, each with its path and proto; they and their holder are removed."""
    first = len(before.nodes)
    if len(after.nodes[0].children) != len(before.nodes[0].children) + 1:
        refuse("expected one more child of the root, which holds masks and values, found another number")
    child = after.nodes[0].children[-1]
    holder = after.nodes[first]
    fields = {field.name for field, _ in holder.ListFields()}
    if child.node_id != first or not fields <= {"children", "user_object"}:
        refuse("expected the last child of the root to hold masks and values, found something else")
    stored = {}
    for position, entry in enumerate(holder.children):
        node = after.nodes[entry.node_id] if entry.node_id < len(after.nodes) else holder
        if entry.node_id != first + 1 + position or {field.name for field, _ in node.ListFields()} != {"variable"}:
            refuse(f"expected a variable at {child.local_name}/{entry.local_name}, found something else")
        if node.variable.trainable:
            refuse(f"expected masks and values that do not train, found that {node.variable.name} does")
        stored[entry.node_id] = ((str(child.local_name), str(entry.local_name)), node.variable)
    if len(after.nodes) != first + 1 + len(stored):
        refuse(f"expected {first + 1 + len(stored)} objects, found {len(after.nodes)}")
    stored = {node: (path, copied(proto)) for node, (path, proto) in stored.items()}
    del after.nodes[first:]
    del after.nodes[0].children[-1]
    return stored
