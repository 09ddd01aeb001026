"""Which variables are slots of a targeted variable, found in the original model.

A slot has the variable's shape. Either an optimizer's operation takes it beside the variable; or the value of every
read of it ends, element by element, in writes of the variable and of its slots, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, call_slots, data_inputs
from graphfreeze.prover.handles import HARMLESS, READS, SAME, Binding, Context, Contexts
from graphfreeze.prover.origins import Ends, Origins, join
from graphfreeze.prover.roots import Roots
from graphfreeze.prover.session_graph import REFERENCE_SAFE, takes_value
from graphfreeze.prover.targets import Target, variable_targets
from graphfreeze.prover.writes import write_of

__all__ = ["find_slots"]


def find_slots(
    meta: meta_graph_pb2.MetaGraphDef,
    library: Mapping[str, GraphView],
    targets: Mapping[int, Target],
    captured: Mapping[str, Iterable[str]],
) -> dict[int, Target]:
    """The slots of the targeted variables that the model writes itself.

    Args:
        meta: The original's meta graph.
        library: Its functions.
        targets: The targeted variables by object node.
        captured: By function, the tensors that custom gradients capture from it.

    Returns:
        The slots by object node, each with the mask of its variable.

    Raises:
        VerificationError: One variable is a slot of two.
    """
    explored = _explore(meta, library, dict(targets))
    written = {variable for context in explored for variable, _ in _writes(context)}
    slots: dict[int, Target] = {}
    for node_id in sorted(written):
        owner = targets[node_id]
        candidates = variable_targets(meta, owner, exclude=targets)
        for slot in sorted(_slots_of(meta, library, owner, candidates, captured)):
            if slot in slots:
                refuse("expected a slot of one targeted variable, found one of two", variable=candidates[slot].name)
            slots[slot] = replace(candidates[slot], slot_of=owner)
    return slots


def _slots_of(
    meta: meta_graph_pb2.MetaGraphDef,
    library: Mapping[str, GraphView],
    owner: Target,
    candidates: dict[int, Target],
    captured: Mapping[str, Iterable[str]],
) -> set[int]:
    try:
        contexts = _explore(meta, library, {owner.node_id: owner, **candidates})
    except VerificationError:
        # Handles of some are mixed up with others: these are no slots.
        candidates = {n: c for n, c in candidates.items() if _is_clear(meta, library, c)}
        contexts = _explore(meta, library, {owner.node_id: owner, **candidates})
    ends: dict[int, Ends] = dict.fromkeys(candidates, frozenset())
    taken: set[int] = set()
    for context in contexts:
        if context.view.definition is None and not context.is_session:
            ends |= dict.fromkeys(_seen_in(context) & set(candidates))
            continue
        height = owner.shape[0] if owner.shape else None
        for variable, found in Origins(context, captured.get(context.view.name, ()), height).ends().items():
            if variable in candidates:
                ends[variable] = join(ends[variable], found)
        ends |= dict.fromkeys(_taken_otherwise(context) & set(candidates))
        for variable, node in _writes(context):
            write = write_of(node)
            if write is not None and write.applies and variable == owner.node_id:
                beside = [context.variable_of(node.input[position]) for position in write.handles]
                if beside[0] == variable:
                    taken.update(slot for slot in beside[1:] if slot in candidates)
    return taken | _closed({n: e for n, e in ends.items() if e is not None}, owner.node_id)


def _closed(ends: dict[int, frozenset[int]], owner: int) -> set[int]:
    """Those that end in the owner and in one another only, and from which the owner is reached."""
    while True:
        allowed = {owner, *ends}
        kept = {n: e for n, e in ends.items() if e <= allowed}
        if len(kept) == len(ends):
            break
        ends = kept
    feeding = {n for n, e in ends.items() if owner in e}
    while more := {n for n, e in ends.items() if n not in feeding and e & feeding}:
        feeding |= more
    return feeding


def _is_clear(meta: meta_graph_pb2.MetaGraphDef, library: Mapping[str, GraphView], candidate: Target) -> bool:
    try:
        _explore(meta, library, {candidate.node_id: candidate})
    except VerificationError:
        return False
    return True


def _explore(
    meta: meta_graph_pb2.MetaGraphDef, library: Mapping[str, GraphView], followed: dict[int, Target]
) -> list[Context]:
    """Every context that a handle of these variables enters; the main graph first.

    Raises:
        VerificationError: A handle cannot be told apart from another, or is given to the caller.
    """
    contexts = Contexts(library)
    roots = Roots(meta, followed, contexts)
    found = [roots.main_context(GraphView.of_main_graph(meta.graph_def))]
    work: list[tuple[str, Binding]] = []
    for name in roots.functions():
        binding = roots.binding(name)
        for variable in contexts.returned(name, binding):
            if variable is not None:
                refuse(
                    "expected handles to stay inside of the model, found a function that returns one",
                    variable=followed[variable].name,
                    function=name,
                )
        work.append((name, binding))
    seen: set[tuple[str, Binding]] = set()

    def enter(context: Context) -> None:
        for node in context.view.nodes.values():
            context.check_loop(node)
            known = context.is_call(node)
            work.extend((s.function, context.binding_of(node, s) if known else ()) for s in call_slots(node, library))

    enter(found[0])
    while work:
        function, binding = work.pop()
        if not binding or (function, binding) in seen:
            continue
        seen.add((function, binding))
        found.append(contexts.of(function, binding))
        enter(found[-1])
    return found


def _seen_in(context: Context) -> set[int]:
    """The variables whose handles live nodes of the main graph take, other than to pass them to functions."""
    return {
        variable
        for node in context.view.nodes.values()
        if context.counts(node.name) and not context.is_call(node) and node.op not in SAME | HARMLESS
        for variable in _followed(context, node)
    }


def _followed(context: Context, node: node_def_pb2.NodeDef) -> set[int]:
    return {v for text in data_inputs(node) if (v := context.variable_of(text)) is not None}


def _writes(context: Context) -> list[tuple[int, node_def_pb2.NodeDef]]:
    """The nodes that write, once for each variable that they take as one that they write."""
    found = []
    for node in context.view.nodes.values():
        write = write_of(node)
        if write is not None and context.counts(node.name) and node.name not in context.initialising:
            written = {context.variable_of(node.input[position]) for position in write.handles}
            found += [(variable, node) for variable in sorted(v for v in written if v is not None)]
    return found


def _taken_otherwise(context: Context) -> set[int]:
    """The variables whose handles or references a node takes that does not just read, write or hand them on."""
    view = context.view
    returned = {Tensor.parse(text).node for text in view.returns.values()}
    found = {context.sources[k] for k in context.references if k[0] in returned}
    for node in filter(lambda node: context.counts(node.name), view.nodes.values()):
        for position, text in enumerate(data_inputs(node)):
            variable = context.variable_of(text)
            write = write_of(node)
            if variable is None or (write is not None and position in write.handles):
                continue
            if context.is_reference(text):
                fine = takes_value(node, position) or node.op in REFERENCE_SAFE
            elif node.op in READS and position == 0:
                fine = True
            else:
                fine = "_gradient_op_type" not in node.attr and (
                    node.op in SAME or node.op in HARMLESS or context.is_call(node) or context.switches(node, position)
                )
            if not fine:
                found.add(variable)
    return found
