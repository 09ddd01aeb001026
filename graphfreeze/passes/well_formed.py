"""The last look at rewritten functions: what TensorFlow's loaders would stumble over, far from its cause."""

from __future__ import annotations

from collections.abc import Container, Iterable

from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH

__all__ = ["check_main_graph", "check_well_formed"]


def check_well_formed(
    proto: saved_model_pb2.SavedModel, changed: Iterable[function_pb2.FunctionDef], called: Iterable[str]
) -> None:
    """Check the names and attributes of a rewritten library.

    Args:
        proto: The rewritten SavedModel.
        changed: The functions that the rewrite changed or added.
        called: The functions that the rewrite made nodes call.

    Raises:
        VerificationError: Two functions or two nodes have one name, a called function is missing, a node takes a tensor
            of a node that is missing, or an attribute has no value (which session loaders refuse).
    """
    library = proto.meta_graphs[0].graph_def.library.function
    functions = {function.signature.name for function in library}
    if len(functions) < len(library):
        raise VerificationError("The rewritten library has two functions of one name.")
    missing = sorted(set(called) - functions - {MAIN_GRAPH})
    if missing:
        raise VerificationError(f"The rewritten graph calls functions that are missing: {', '.join(missing)}.")
    for function in changed:
        _check_function(function)


def _check_function(function: function_pb2.FunctionDef) -> None:
    where = f"function {function.signature.name}"
    names = {node.name for node in function.node_def} | {argument.name for argument in function.signature.input_arg}
    if len(names) < len(function.node_def) + len(function.signature.input_arg):
        raise VerificationError(f"Two nodes of {where} have one name.")
    _check_nodes(function.node_def, names, where)
    for output, tensor in function.ret.items():
        if tensor.split(":", 1)[0] not in names:
            raise VerificationError(f"Output {output!r} of {where} is {tensor!r}, which is missing.")


def check_main_graph(graph: graph_pb2.GraphDef) -> None:
    """Check the names and attributes of a rewritten main graph.

    Raises:
        VerificationError: As for functions.
    """
    names = {node.name for node in graph.node}
    if len(names) < len(graph.node):
        raise VerificationError("Two nodes of the main graph have one name.")
    _check_nodes(graph.node, names, "the main graph")


def _check_nodes(nodes: Iterable[node_def_pb2.NodeDef], names: Container[str], where: str) -> None:
    for node in nodes:
        for reference in node.input:
            if reference.removeprefix("^").split(":", 1)[0] not in names:
                raise VerificationError(f"Node {node.name!r} of {where} takes {reference!r}, which is missing.")
        for key, value in node.attr.items():
            if value.WhichOneof("value") is None:
                raise VerificationError(f"Attribute {key!r} of node {node.name!r} of {where} has no value.")
