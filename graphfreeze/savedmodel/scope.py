"""The part of a model to which a freeze is limited: some endpoints, and the functions that belong to them alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.savedmodel.call_sites import call_slots
from graphfreeze.savedmodel.object_graph import saver_functions
from graphfreeze.savedmodel.reachable import reachable
from graphfreeze.selection.nearest import suggest

if TYPE_CHECKING:
    from graphfreeze.savedmodel.model import SavedModel

__all__ = ["Scope", "find_scope"]


@dataclass(frozen=True)
class Scope:
    """What a freeze in some endpoints only begins with.

    Attributes:
        functions: The concrete functions that take frozen variables: those of the endpoints, and of gradients that
            only they use.
        signatures: The keys of the signatures among the endpoints.
    """

    functions: frozenset[str]
    signatures: frozenset[str]


def find_scope(model: SavedModel, only_in: Sequence[str]) -> Scope | None:
    """The scope of a freeze in the endpoints of these names; an attribute and a signature may share a name.

    Returns:
        The scope, or None where no name is given: everything.

    Raises:
        UsageError: There is no endpoint of a name.
        UnsupportedError: Another endpoint is the same function object.
    """
    if not only_in:
        return None
    if not model.has_objects:
        raise UnsupportedError(
            f"{model.directory} was written by TensorFlow 1: its endpoints are one graph and share their reads. A "
            "freeze cannot be limited to some of them there: freeze in all endpoints."
        )
    _check_names(model, only_in)
    chosen = [endpoint for endpoint in model.endpoints if endpoint.name in only_in]
    functions = frozenset(function for endpoint in chosen for function in endpoint.functions)
    for endpoint in model.endpoints:
        if endpoint not in chosen and not functions.isdisjoint(endpoint.functions):
            raise UnsupportedError(
                f"{endpoint.label} is the same function as one of {', '.join(only_in)}: it cannot stay as it is. "
                f"Name {endpoint.name} too, or export it as a function of its own."
            )
    signatures = frozenset(endpoint.name for endpoint in chosen if endpoint.kind == "signature")
    return Scope(functions | _own_gradients(model, functions), signatures)


def _check_names(model: SavedModel, only_in: Iterable[str]) -> None:
    names = list(dict.fromkeys(endpoint.name for endpoint in model.endpoints))
    for name in only_in:
        if name not in names:
            raise UsageError(
                f"The model has no endpoint {name!r} ({suggest(name, names)}). It has: {', '.join(names) or 'none'}."
            )


def _gradient_functions(graph: Any) -> dict[str, str]:
    """The name by which nodes ask for a gradient of their own -> the function that computes it."""
    return {g.registered_op_type: g.gradient_func for g in graph.library.registered_gradients}


def _own_gradients(model: SavedModel, functions: frozenset[str]) -> frozenset[str]:
    """The gradient functions that nothing but these functions uses."""
    gradients = _gradient_functions(model.meta_graph.graph_def)
    callees = _callees(model, gradients)
    inside = reachable(functions, callees)
    saver = saver_functions(model.object_graph)
    others = set(model.object_graph.concrete_functions) - functions - set(gradients.values()) - saver
    outside = reachable(others, callees)
    shared = sorted(
        g for g in set(gradients.values()) & inside & outside if model.object_graph.concrete_functions[g].bound_inputs
    )
    if shared:
        raise UnsupportedError(
            f"The gradient function {shared[0]} serves the chosen endpoints and others, and it takes variables: it "
            "cannot be frozen for one alone. Freeze in all endpoints, or export them as models of their own."
        )
    return frozenset(g for g in gradients.values() if g in inside and g not in outside)


def _callees(model: SavedModel, gradients: dict[str, str]) -> dict[str, set[str]]:
    """Function -> the functions that it calls, or that compute gradients of its nodes."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for name, function in model.functions.items():
        for node in function.node_def:
            found[name].update(slot.callee for slot in call_slots(node, model.functions))
            if "_gradient_op_type" in node.attr:
                gradient = gradients.get(node.attr["_gradient_op_type"].s.decode())
                if gradient is not None and gradient in model.object_graph.concrete_functions:
                    found[name].add(gradient)
    return found
