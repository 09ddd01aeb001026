"""One body per context: functions are cloned where contexts disagree, and calls go to the right clone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from typing import Any

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import UnsupportedVariableUseError
from graphfreeze.passes.main_graph import MainGraph
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.savedmodel.call_sites import rename_callee
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import Call, Context
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH

__all__ = ["name_contexts", "specialise"]


def name_contexts(
    analysis: Analysis, existing: Container[str], fixed: Container[str], *, plain_first: bool = False
) -> dict[Context, str]:
    """Give every context the name of its function's body.

    A function keeps its name for the context in which the object graph binds it; one that is not bound there, for the
    context without targeted variables, else for the first. Other contexts get clones.

    Args:
        analysis: The analysis.
        existing: The names of the functions that there are.
        fixed: Functions that cannot be cloned, because custom gradients capture tensors from inside them.
        plain_first: The context without targeted variables keeps the name even where the object graph binds another.

    Raises:
        UnsupportedVariableUseError: One of these would have to be cloned.
    """
    by_function: defaultdict[str, list[Context]] = defaultdict(list)
    for context in analysis.contexts:
        by_function[context.function].append(context)
    names: dict[Context, str] = {}
    for function, contexts in by_function.items():
        plain = Context(function)
        root = None if plain_first and plain in contexts else analysis.roots.get(function)
        own = root or (plain if plain in contexts else contexts[0])
        clones = [context for context in contexts if context != own]
        if clones and function in fixed:
            raise UnsupportedVariableUseError(
                f"Function {function} runs with different targeted variables, and a custom gradient captures tensors "
                "from inside it, so that it cannot be cloned. Leave the variables that it is called with out of the "
                "selection."
            )
        names[own] = function
        names.update(zip(clones, _clone_names(function, existing), strict=False))
    return names


def specialise(
    proto: saved_model_pb2.SavedModel, analysis: Analysis, names: dict[Context, str], budget: SizeBudget
) -> dict[Context, Any]:
    """Clone functions, and make every call name the body of its context.

    Args:
        proto: The SavedModel to change.
        analysis: The analysis of its original.
        names: Context -> name of its body.
        budget: What the graph may grow to.

    Returns:
        Context -> its body in `proto`: a `FunctionDef`, or the main graph in the shape of one.
    """
    graph = proto.meta_graphs[0].graph_def
    originals: dict[str, Any] = {function.signature.name: function for function in graph.library.function}
    originals[MAIN_GRAPH] = MainGraph(proto.meta_graphs[0])
    bodies: dict[Context, Any] = {}
    for context, name in names.items():
        bodies[context] = originals[context.function]
        if name != context.function:
            clone = graph.library.function.add()
            clone.CopyFrom(originals[context.function])
            clone.signature.name = name
            budget.take(clone.ByteSize())
            bodies[context] = clone
    for context, body in bodies.items():
        _patch_calls(body.node_def, analysis.contexts[context].calls, names)
    _patch_calls(graph.node, analysis.main_graph.calls, names)
    return bodies


def _patch_calls(nodes: Sequence[node_def_pb2.NodeDef], calls: Iterable[Call], names: dict[Context, str]) -> None:
    for call in calls:
        name = names[call.callee]
        if name != call.slot.callee:
            rename_callee(nodes[call.node], call.slot, name)


def _clone_names(function: str, existing: Container[str]) -> Iterable[str]:
    number = 0
    while True:
        number += 1
        name = f"{function}_graphfreeze_{number}"
        if name not in existing:
            yield name
