"""The main graph of a SavedModel, which session loaders run: its signature calls, and whose handles they take."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.endpoints import INITIALISER_SIGNATURE

__all__ = [
    "MAIN_GRAPH",
    "node_of",
    "saver_nodes",
    "signature_nodes",
    "signature_outputs",
    "unclear_handles",
    "variable_handles",
]

MAIN_GRAPH = "the main graph"
"""What stands for the main graph among the names of functions, none of which holds a space."""


def node_of(reference: str) -> str:
    """The name of the node that an input reference of the main graph names."""
    return reference.removeprefix("^").split(":", 1)[0]


def signature_nodes(meta_graph: meta_graph_pb2.MetaGraphDef, keys: Container[str] | None = None) -> set[str]:
    """The names of all nodes that the outputs of the signatures of these keys depend on; by default of all of them."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    pending = [
        node_of(output.name)
        for key, signature in meta_graph.signature_def.items()
        if key != INITIALISER_SIGNATURE and (keys is None or key in keys)
        for output in signature.outputs.values()
    ]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in nodes and name not in found:
            found.add(name)
            pending.extend(node_of(reference) for reference in nodes[name].input)
    return found


def signature_outputs(meta_graph: meta_graph_pb2.MetaGraphDef) -> dict[tuple[str, str], str]:
    """The dense tensors that signatures give out, by key of the signature and name of the output."""
    return {
        (key, name): signature.outputs[name].name
        for key, signature in sorted(meta_graph.signature_def.items())
        if key != INITIALISER_SIGNATURE
        for name in sorted(signature.outputs)
        if signature.outputs[name].WhichOneof("encoding") == "name"
    }


def saver_nodes(meta_graph: meta_graph_pb2.MetaGraphDef) -> tuple[node_def_pb2.NodeDef, ...]:
    """The nodes with which a session saves and restores."""
    saver = meta_graph.saver_def
    names = {node_of(saver.save_tensor_name), node_of(saver.restore_op_name)}
    return tuple(node for node in meta_graph.graph_def.node if node.name in names)


def variable_handles(
    meta_graph: meta_graph_pb2.MetaGraphDef, functions: dict[str, function_pb2.FunctionDef], body: Body
) -> dict[str, int]:
    """Which object each handle of the main graph stands for.

    The main graph names no objects. But it calls concrete functions with the handles that the object graph lists as
    their captures, in the same order.

    Returns:
        Tensor -> object node id.
    """
    return {tensor: captured for _, tensor, captured in _passed(meta_graph, functions, body)}


def unclear_handles(
    meta_graph: meta_graph_pb2.MetaGraphDef,
    functions: dict[str, function_pb2.FunctionDef],
    body: Body,
    live: Container[str],
) -> list[tuple[int, int, str]]:
    """Calls of concrete functions by live nodes that pass something else than one handle for each object.

    Returns:
        Position of the node, object node id, and the reason, for each.
    """
    owners: dict[str, int] = {}
    unclear = []
    for i, tensor, captured in _passed(meta_graph, functions, body):
        if body.nodes[i].name not in live:
            continue
        origin = body.positions[node_of(tensor)]
        seen: set[int] = set()
        while body.nodes[origin].op in ("Identity", "IdentityN") and body.nodes[origin].input and origin not in seen:
            seen.add(origin)
            origin = body.positions[node_of(body.nodes[origin].input[0])]
        if body.nodes[origin].op != "VarHandleOp":
            unclear.append((i, captured, "it passes something else than the variable's handle"))
            continue
        owner = owners.setdefault(body.nodes[origin].name, captured)
        if owner != captured:
            reason = "its handle stands for another variable too"
            unclear += [(i, captured, reason), (i, owner, reason)]
    return unclear


def _passed(
    meta_graph: meta_graph_pb2.MetaGraphDef, functions: dict[str, function_pb2.FunctionDef], body: Body
) -> Iterator[tuple[int, str, int]]:
    """Position of a node that calls a concrete function, a tensor that it passes, the object that this stands for."""
    concrete: Any = meta_graph.object_graph_def.concrete_functions
    for i, node in enumerate(body.nodes):
        if node.op in CALLS and node.attr["f"].func.name in concrete:
            name = node.attr["f"].func.name
            captures = concrete[name].bound_inputs
            first = len(functions[name].signature.input_arg) - len(captures)
            for position, captured in enumerate(captures, first):
                yield i, body.tensor(node.input[position]), captured
