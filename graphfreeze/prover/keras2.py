"""Keras 2 saves: `tf_keras.models.load_model` either refuses the rewritten model, or uses its masked functions."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_object_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.keras_notes import Note, notes_in_file, notes_in_graph
from graphfreeze.prover.targets import Target

__all__ = ["compare_keras_2"]

REFUSING_CLASS = (
    "graphfreeze froze weights of this model: load it with tf.saved_model.load, "
    "or rewrite the original with --keras2 keep"
)
KEEPING_PREFIX = "GraphFrozen>"
ROOT = 0


def compare_keras_2(
    files: tuple[Path, Path],
    before: saved_object_graph_pb2.SavedObjectGraph,
    after: saved_object_graph_pb2.SavedObjectGraph,
    targets: dict[int, Target],
) -> dict[str, Any] | None:
    """Prove that each object which reaches a targeted variable is noted in the one way or the other, and no other is.

    Keras builds an object from its configuration where it knows its class. So the freeze is kept where every object
    above a targeted variable is of a class that does not exist, but for networks that are made of other objects.

    Args:
        files: The `keras_metadata.pb` of the original, which need not exist, and of the rewritten model.
        before: The original's object graph.
        after: The rewritten model's object graph, of as many nodes.
        targets: The targeted variables by object node.

    Returns:
        Evidence, or None where this is no Keras 2 save: `mode`, and the numbers of objects `noted` and `retagged`.

    Raises:
        VerificationError: Something is noted otherwise.
    """
    pairs = notes_in_graph(before, after)
    if files[0].is_file() != files[1].is_file():
        refuse(f"expected {files[1]} where the original has {files[0]}, found one of the two", file=files[1].name)
    if files[0].is_file():
        pairs += notes_in_file(*files)
    if not pairs:
        return None
    mode = "refuse" if any(_class_name(new) == REFUSING_CLASS for _, new in pairs) else "keep"
    covered: set[int] = set()
    retagged = 0
    for old, new in pairs:
        reached = _subtree(before, old.node) & targets.keys()
        if (old.node, old.rest) != (new.node, new.rest):
            refuse(f"expected the Keras entry of object {old.node}, found another one", object=old.node)
        expected = (old.identifier, _content(old))
        if mode == "refuse" and (reached or (targets and old.node == ROOT)):
            expected = (old.identifier, _refusing(expected[1]))
            covered |= targets.keys() if old.node == ROOT else reached
        elif mode == "keep" and reached and not _is_network(expected[1]):
            expected = _keeping(old, expected[1], reached, targets)
            covered |= reached
        retagged += expected != (old.identifier, _content(old))
        if expected != (new.identifier, _content(new)):
            refuse(
                f"expected object {old.node} ({_name(old)}) to be noted for --keras2 {mode}"
                if reached
                else f"expected the Keras entry of object {old.node} ({_name(old)}), which no targeted variable is in, "
                "to stay as it is",
                object=old.node,
            )
    for node, target in targets.items():
        if node not in covered:
            refuse(
                f"expected an object of Keras that reaches the variable and does not build it anew, found none "
                f"(--keras2 {mode})",
                variable=target.name,
            )
    return {"mode": mode, "noted": len(pairs), "retagged": retagged}


def _refusing(content: dict[str, Any]) -> dict[str, Any]:
    """What makes load_model fail: an unknown class, with a configuration from which it has to be built."""
    network = {"is_graph_network": False} if content.get("is_graph_network") is True else {}
    return {**content, **network, "class_name": REFUSING_CLASS, "must_restore_from_config": True, "config": {}}


def _keeping(
    note: Note, content: dict[str, Any], reached: Collection[int], targets: dict[int, Target]
) -> tuple[str, dict[str, Any]]:
    """What makes load_model use the saved functions: an unknown class of an identifier that it can revive."""
    if note.identifier == "_tf_keras_metric":
        refuse(
            "expected no targeted variable in a metric, which Keras builds anew",
            variable=targets[min(reached)].name,
            object=note.node,
        )
    identifier = "_tf_keras_layer" if note.identifier == "_tf_keras_rnn_layer" else note.identifier
    name = str(content.get("class_name", ""))
    return identifier, {**content, "class_name": name if name.startswith(KEEPING_PREFIX) else KEEPING_PREFIX + name}


def _is_network(content: dict[str, Any]) -> bool:
    """Whether Keras puts it together from its layers, which are noted themselves."""
    name = content.get("class_name")
    return name in ("Functional", "Sequential") or (name == "Model" and content.get("is_graph_network") is True)


def _content(note: Note) -> dict[str, Any]:
    try:
        return note.content()
    except (ValueError, RecursionError) as error:
        refuse(f"expected a JSON object in the Keras entry of object {note.node}, found {error}", object=note.node)


def _class_name(note: Note) -> Any:
    return _content(note).get("class_name")


def _name(note: Note) -> str:
    return str(_content(note).get("name", "without a name"))


def _subtree(graph: saved_object_graph_pb2.SavedObjectGraph, root: int) -> set[int]:
    """All objects below one: its children, what its functions capture, and so on."""
    found: set[int] = set()
    pending = [root]
    while pending:
        current = pending.pop()
        if current in found or not 0 <= current < len(graph.nodes):
            continue
        found.add(current)
        node = graph.nodes[current]
        pending += [child.node_id for child in node.children]
        kind = node.WhichOneof("kind")
        functions: list[str] = []
        if kind == "function":
            functions = list(node.function.concrete_functions)
        elif kind == "bare_concrete_function":
            functions = [node.bare_concrete_function.concrete_function_name]
        elif kind == "captured_tensor":
            functions = [node.captured_tensor.concrete_function]
        for name in functions:
            if name in graph.concrete_functions:
                pending += graph.concrete_functions[name].bound_inputs
    return found
