"""What in a graph of TensorFlow 1 saves, restores and initialises: there, variables are taken as they are stored.

A graph without objects does all of that with nodes of its own. What saves is recognised by what it ends in, restoring
by what it begins with, and initialisers by the collections in which TensorFlow 1 lists the variables.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.endpoints import INITIALISER_SIGNATURE
from graphfreeze.savedmodel.main_graph import node_of

__all__ = ["OVERWRITES", "initialising_nodes", "origin", "saving_nodes", "variable_definitions"]

OVERWRITES = frozenset({"Assign", "AssignVariableOp"})
_SAVES = frozenset({"Save", "SaveSlices", "SaveV2"})
_RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
# Where TensorFlow 1 lists what a session runs after it has restored.
_INITIALISERS = ("saved_model_main_op", "legacy_init_op")


def saving_nodes(body: Body, outputs: Iterable[str]) -> frozenset[int]:
    """The nodes that write checkpoints, and identities whose values end in these alone.

    Args:
        body: The main graph.
        outputs: The tensors that signatures give out.
    """
    given = {node_of(tensor) for tensor in outputs}
    saving = {i for i, node in enumerate(body.nodes) if node.op in _SAVES}
    pending = list(saving)
    while pending:
        for reference in body.nodes[pending.pop()].input:
            i = body.positions.get(node_of(reference))
            if i is None or i in saving or reference.startswith("^") or body.nodes[i].op != "Identity":
                continue
            takers = body.consumers.get(body.output(i, "output", 0), ())
            if body.nodes[i].name not in given and all(taker.node in saving for taker in takers):
                saving.add(i)
                pending.append(i)
    return frozenset(saving)


def initialising_nodes(meta_graph: meta_graph_pb2.MetaGraphDef, body: Body) -> frozenset[int]:
    """The nodes that overwrite variables in order to initialise or to restore them."""
    overwriting = {i for i, node in enumerate(body.nodes) if node.op in OVERWRITES}
    found = {i for i in overwriting if (start := origin(body, i)) is not None and body.nodes[start].op in _RESTORES}
    collections = meta_graph.collection_def
    names = {definition.initializer_name for definition in variable_definitions(meta_graph)}
    roots = {node for key in _INITIALISERS if key in collections for node in collections[key].node_list.value}
    if INITIALISER_SIGNATURE in meta_graph.signature_def:
        roots.update(output.name for output in meta_graph.signature_def[INITIALISER_SIGNATURE].outputs.values())
    pending, seen = [node_of(root) for root in roots], set[str]()
    while pending:
        name = pending.pop()
        if name in body.positions and name not in seen:
            seen.add(name)
            pending += [node_of(reference) for reference in body.nodes[body.positions[name]].input]
    return frozenset(found | {i for i in overwriting if body.nodes[i].name in names or body.nodes[i].name in seen})


def origin(body: Body, assign: int) -> int | None:
    """The node in which the value of an Assign begins, behind operations with one data input."""
    reference, seen = body.nodes[assign].input[1], set[int]()
    while (i := body.positions.get(node_of(reference))) is not None and i not in seen:
        seen.add(i)
        inputs = [taken for taken in body.nodes[i].input if not taken.startswith("^")]
        if len(inputs) != 1:
            return i
        reference = inputs[0]
    return None


def variable_definitions(meta_graph: meta_graph_pb2.MetaGraphDef, collection: str | None = None) -> list[Any]:
    """What collections say of variables: one of them, or all. Entries that are something else are left out."""
    definitions = []
    for name in [collection] if collection is not None else sorted(meta_graph.collection_def):
        if name not in meta_graph.collection_def:
            continue
        for content in meta_graph.collection_def[name].bytes_list.value:
            definition = variable_pb2.VariableDef()
            try:
                definition.ParseFromString(content)
            except DecodeError:
                continue
            if definition.variable_name and definition.initializer_name:
                definitions.append(definition)
    return definitions
