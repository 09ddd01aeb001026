"""Where the variables of a graph without objects go: handles as elsewhere, and references, which TensorFlow 1 has too.

An operation either takes a reference as such, to write the variable, or it takes the value. Nearly all values are
taken by an Identity, the read; any other operation may take one, too. What writes yields the reference again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from functools import cache

from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import op_def_registry

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.handle_flow import Context, Flow, Use, UseKind, trace_handles
from graphfreeze.savedmodel.main_graph import node_of
from graphfreeze.savedmodel.updates import UpdateKind, update_of

__all__ = ["entered_by", "takes_reference", "trace_graph"]

_FORWARDING = frozenset({"RefEnter", "RefIdentity", "RefSwitch"})
_ENTERS = frozenset({"Enter", "RefEnter"})
_HARMLESS = frozenset({"IsVariableInitialized"})


def trace_graph(
    body: Body,
    handles: Mapping[str, int],
    references: Mapping[str, int],
    functions: Container[str],
    returns_of: Callable[[Context], Mapping[int, int]],
    initialising: Container[int],
) -> Flow:
    """Follow handles and references through the main graph.

    Args:
        body: The main graph, without what saves.
        handles: Tensor -> variable, of handles.
        references: Tensor -> variable, of references.
        functions: The names of the library's functions.
        returns_of: Which handles a context is known to return so far.
        initialising: The positions of nodes that initialise or restore: what they write is no update.

    Returns:
        The flow. The references that signatures give out are uses of their values, with the position -1.
    """
    flow = trace_handles(body, handles, functions, returns_of)
    known = _trace_references(body, references, flow)
    flow.uses += [Use(UseKind.VALUE, -1, known[tensor]) for tensor in body.returned if tensor in known]
    flow.uses = [u for u in flow.uses if u.kind is not UseKind.WRITE or u.node not in initialising]
    flow.uses.sort(key=lambda use: use.node)
    flow.handles |= known
    return flow


def entered_by(body: Body, tensor: str) -> str | None:
    """The node by which a handle or reference entered the innermost loop that it is in; None outside of loops."""
    seen: set[str] = set()
    while tensor not in seen:
        seen.add(tensor)
        i = body.positions.get(node_of(tensor))
        node = None if i is None or body.in_function else body.nodes[i]
        if node is None or not node.input or node.input[0].startswith("^"):
            return None
        if node.op in _ENTERS:
            return str(node.name)
        tensor = body.tensor(node.input[0])
    return None


def takes_reference(node: node_def_pb2.NodeDef, position: int) -> bool:
    """Whether a node takes a reference at that input, and not its value."""
    taken = _reference_inputs(node.op)
    return position in taken


@cache
def _reference_inputs(operation: str) -> frozenset[int]:
    """The inputs that take references. Only operations on lists have them behind a list, and these take no other."""
    definition = op_def_registry.get(operation)
    if definition is None:
        return frozenset()
    lists = any(a.is_ref and (a.number_attr or a.type_list_attr) for a in definition.input_arg)
    return frozenset(range(1 << 16) if lists else (i for i, a in enumerate(definition.input_arg) if a.is_ref))


@cache
def _reference_outputs(operation: str) -> int:
    definition = op_def_registry.get(operation)
    return 0 if definition is None else sum(output.is_ref for output in definition.output_arg)


def _trace_references(body: Body, references: Mapping[str, int], flow: Flow) -> dict[str, int]:
    known = dict(references)
    pending = list(known)
    taken: dict[int, set[int]] = {}
    # Here, what saves counts too.
    inputs = (text for node in body.nodes for text in node.input if not text.startswith("^"))
    sources = {node_of(tensor) for tensor in (*inputs, *body.returned)} if known else set()
    while pending:
        tensor = pending.pop()
        variable = known[tensor]
        for i, position in body.consumers.get(tensor, ()):
            node = body.nodes[i]
            if not takes_reference(node, position):
                kind = UseKind.READ if node.op == "Identity" else UseKind.VALUE
                flow.uses.append(Use(kind, i, variable))
                continue
            for output in (body.output(i, "", k) for k in range(_reference_outputs(node.op))):
                # Of a slot, an update yields nothing: its output is the variable.
                if position == 0 and output not in known:
                    known[output] = variable
                    pending.append(output)
            if node.op not in _FORWARDING | _HARMLESS and variable not in taken.setdefault(i, set()):
                taken[i].add(variable)
                flow.uses.append(_write(body, i, variable, node.name in sources))
    return known


def _write(body: Body, i: int, variable: int, is_taken: bool) -> Use:
    update = update_of(body.nodes[i])
    if update is None:
        return Use(UseKind.OTHER, i, variable)
    if update.kind is UpdateKind.APPLY and is_taken:
        return Use(UseKind.OTHER, i, variable, "its output is taken before frozen elements are put back")
    return Use(UseKind.WRITE, i, variable)
