"""The main graph of a SavedModel, which session loaders run: its signature calls, and whose handles they take."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.endpoints import INITIALISER_SIGNATURE

__all__ = ["node_of", "saver_nodes", "signature_nodes", "variable_handles"]


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
    concrete: Any = meta_graph.object_graph_def.concrete_functions
    handles: dict[str, int] = {}
    for node in body.nodes:
        if node.op not in CALLS or node.attr["f"].func.name not in concrete:
            continue
        name = node.attr["f"].func.name
        captures = concrete[name].bound_inputs
        first = len(functions[name].signature.input_arg) - len(captures)
        for position, captured in enumerate(captures, first):
            handles[body.tensor(node.input[position])] = captured
    return handles
