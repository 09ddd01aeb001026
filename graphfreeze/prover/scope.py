"""A freeze in some endpoints only: which functions and signatures these are, and which clones stand for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.protobuf import meta_graph_pb2, saved_object_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, call_slots

__all__ = ["Scope", "find_scope", "functions_of", "take_back_clones"]

SIGNATURES = "signature_map"


@dataclass(frozen=True)
class Scope:
    """Where variables are frozen.

    Attributes:
        functions: The concrete functions in which they are; all others have to stay as they are.
        signatures: The signatures in which they are.
    """

    functions: frozenset[str]
    signatures: frozenset[str]


def find_scope(meta: meta_graph_pb2.MetaGraphDef, library: Mapping[str, GraphView], only_in: Sequence[str]) -> Scope:
    """The scope of the endpoints of these names in the original.

    Raises:
        VerificationError: There is no such endpoint, or another one is the same function.
    """
    graph = meta.object_graph_def
    inside: set[str] = set()
    outside: set[str] = set()
    names: set[str] = set()
    for child in graph.nodes[0].children:
        node = graph.nodes[child.node_id]
        entries = [child]
        if node.WhichOneof("kind") == "user_object" and node.user_object.identifier == SIGNATURES:
            entries = list(node.children)
        for entry in entries:
            functions = functions_of(graph.nodes[entry.node_id])
            if functions:
                names.add(entry.local_name)
            (inside if entry.local_name in only_in else outside).update(functions)
    missing = sorted(set(only_in) - names)
    if missing:
        refuse(f"expected an endpoint {missing[0]!r} in the original, found {', '.join(sorted(names)) or 'none'}")
    if inside & outside:
        refuse(
            "expected endpoints that are functions of their own, found one that is another's, too",
            function=min(inside & outside),
        )
    signatures = frozenset(meta.signature_def) & frozenset(only_in)
    return Scope(frozenset(inside | _gradients_of(meta, library, inside)), signatures)


def functions_of(node: saved_object_graph_pb2.SavedObject) -> list[str]:
    """The concrete functions that the object is."""
    kind = node.WhichOneof("kind")
    if kind == "function":
        return list(node.function.concrete_functions)
    if kind == "bare_concrete_function":
        return [node.bare_concrete_function.concrete_function_name]
    return []


def _gradients_of(
    meta: meta_graph_pb2.MetaGraphDef, library: Mapping[str, GraphView], functions: Iterable[str]
) -> set[str]:
    """The gradient functions that these functions ask for, directly or through others, while no others do."""
    concrete = meta.object_graph_def.concrete_functions
    registered = {g.registered_op_type: g.gradient_func for g in meta.graph_def.library.registered_gradients}
    gradients = {name for name in registered.values() if name in concrete}

    def reached(start: Iterable[str]) -> set[str]:
        seen: set[str] = set()
        work = list(start)
        while work:
            name = work.pop()
            if name in seen or name not in library:
                continue
            seen.add(name)
            for node in library[name].nodes.values():
                work.extend(slot.function for slot in call_slots(node, library))
                if "_gradient_op_type" in node.attr:
                    gradient = registered.get(node.attr["_gradient_op_type"].s.decode(errors="replace"), "")
                    work.extend({gradient} & gradients)
        return seen

    saving = {
        name
        for node in meta.object_graph_def.nodes
        for saveable in node.saveable_objects.values()
        for object_id in (saveable.save_function, saveable.restore_function)
        for name in functions_of(meta.object_graph_def.nodes[object_id])
    }
    inside, outside = reached(functions), reached(set(concrete) - set(functions) - gradients - saving)
    for name in sorted(gradients & inside & outside):
        if concrete[name].bound_inputs:
            refuse(
                "expected gradients that serve endpoints on one side only, found one that serves both", function=name
            )
    return {name for name in gradients if name in inside and name not in outside}


def take_back_clones(
    before: saved_object_graph_pb2.SavedObjectGraph, after: saved_object_graph_pb2.SavedObjectGraph, scope: Scope
) -> dict[str, str]:
    """Let function objects of the rewritten model stand for the original's functions again.

    Args:
        before: The original's object graph.
        after: The rewritten model's; it is changed back.
        scope: Whose functions may have clones.

    Returns:
        Function of the original -> the clone that stood for it.

    Raises:
        VerificationError: A clone stands for several functions, or is described otherwise than its original.
    """
    clones: dict[str, str] = {}
    kept: set[str] = set()
    for old, new in zip(before.nodes, after.nodes, strict=False):
        for position, (a, b) in enumerate(zip(functions_of(old), functions_of(new), strict=False)):
            if a == b:
                kept.add(a)
                continue
            if a not in scope.functions or clones.setdefault(a, b) != b or b in before.concrete_functions:
                refuse(f"expected the function {a!r} or its only clone to be bound, found {b!r}", function=b)
            if new.WhichOneof("kind") == "function":
                new.function.concrete_functions[position] = a
            else:
                new.bare_concrete_function.concrete_function_name = a
    for original in sorted(kept & clones.keys()):
        refuse(
            "expected every object to stand for the clone, found one that stands for its original", function=original
        )
    if len(set(clones.values())) < len(clones):
        refuse("expected a clone of one function only, found one of several", function=min(clones.values()))
    for original, clone in clones.items():
        if clone not in after.concrete_functions:
            refuse("expected the clone of a bound function to be described, found no description", function=clone)
        found = after.concrete_functions[clone].SerializeToString(deterministic=True)
        if found != before.concrete_functions[original].SerializeToString(deterministic=True):
            refuse("expected a clone to be bound as its original, found it bound otherwise", function=clone)
        del after.concrete_functions[clone]
    return clones
