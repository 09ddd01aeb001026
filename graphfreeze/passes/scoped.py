"""Freezing in some endpoints only: their functions get bodies of their own where others call them, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow.core.protobuf import saved_object_graph_pb2

from graphfreeze.errors import UnsupportedError
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.savedmodel.main_graph import signature_nodes
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.scope import Scope

__all__ = ["bind_clones", "check_signatures"]


def check_signatures(model: SavedModel, analysis: Analysis, scope: Scope) -> None:
    """Refuse signatures that share a call with one outside of the scope.

    Raises:
        UnsupportedError: There are some.
    """
    for key in sorted(set(model.meta_graph.signature_def) - scope.signatures):
        others = signature_nodes(model.meta_graph, {key})
        for call in analysis.main_graph.calls:
            name = model.main_body.nodes[call.node].name
            if call.callee.binding and name in others:
                raise UnsupportedError(
                    f"Signature {key} and one of {', '.join(sorted(scope.signatures))} share the node {name!r} of the "
                    "main graph: one cannot be frozen without the other. Freeze in both."
                )


def bind_clones(
    graph: saved_object_graph_pb2.SavedObjectGraph, analysis: Analysis, names: Mapping[Context, str]
) -> None:
    """Let function objects stand for the clones of their functions, where these did not keep their names.

    Args:
        graph: The object graph to change. The clones take what it says of the originals, which stay in it.
        analysis: The analysis of the original.
        names: Context -> name of its body.

    Raises:
        UnsupportedError: What would have to be a clone is no function object.
    """
    renamed = {function: names[context] for function, context in analysis.roots.items() if names[context] != function}
    bound: set[str] = set()
    for node in graph.nodes:
        bound.update(_rename(node, renamed))
    for function, name in renamed.items():
        if function not in bound:
            raise UnsupportedError(
                f"Function {function} runs in the chosen endpoints and in others, and no object stands for it, so that "
                "it cannot be cloned. Freeze in all endpoints."
            )
        graph.concrete_functions[name].CopyFrom(graph.concrete_functions[function])


def _rename(node: Any, renamed: Mapping[str, str]) -> set[str]:
    """Rename the functions that an object stands for; returns those that it stood for."""
    if node.WhichOneof("kind") == "bare_concrete_function":
        old = node.bare_concrete_function.concrete_function_name
        if old in renamed:
            node.bare_concrete_function.concrete_function_name = renamed[old]
            return {old}
    found = set()
    if node.WhichOneof("kind") == "function":
        listed = node.function.concrete_functions
        for i, old in enumerate(listed):
            if old in renamed:
                listed[i] = renamed[old]
                found.add(old)
    return found
