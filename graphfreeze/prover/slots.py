"""Which variables are slots of a targeted variable, found in the original model.

A slot has the variable's shape. Either an optimizer's operation takes it beside the variable; or it is neither
trainable nor an integer, and the value of every read of it ends, element by element, in writes of the variable and of
its slots, in norms and directions in which frozen elements have no part, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.prover.bodies import Bodies, has_values
from graphfreeze.prover.closure import Closure
from graphfreeze.prover.ends import Ends
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.handles import HARMLESS, READS, SAME, Binding, Context
from graphfreeze.prover.influence import Influence, Zeroed
from graphfreeze.prover.scope import Scope
from graphfreeze.prover.session_graph import REFERENCE_SAFE, takes_value
from graphfreeze.prover.targets import Target, variable_targets
from graphfreeze.prover.writes import write_of

__all__ = ["Slots", "find_slots"]


class Slots(NamedTuple):
    """What is found of a model's own training steps.

    Attributes:
        slots: The slots of the targeted variables by object node, each with the mask of its variable.
        zeroed: Where frozen elements have to be zero, by function and what targeted variables and slots are bound
            there.
    """

    slots: dict[int, Target]
    zeroed: dict[tuple[str, Binding], Zeroed]


def find_slots(
    meta: meta_graph_pb2.MetaGraphDef,
    main: GraphView,
    library: Mapping[str, GraphView],
    targets: Mapping[int, Target],
    captured: Mapping[str, Iterable[str]],
    scope: Scope | None = None,
) -> Slots:
    """The slots of the targeted variables that the model writes itself, and what is masked for them.

    Args:
        meta: The original's meta graph.
        main: Its main graph.
        library: Its functions.
        targets: The targeted variables by object node.
        captured: By function, the tensors that custom gradients capture from it.
        scope: Where the variables are frozen; None means everywhere. Slots are those of all endpoints.

    Raises:
        VerificationError: One variable is a slot of two.
    """
    bodies = Bodies(meta, main, library, dict(targets))
    written = sorted({variable for context in bodies.contexts.values() for variable, _ in _writes(context)})
    if not written:
        return Slots({}, {})
    # All variables of one shape are candidates alike, for whichever variable of that shape.
    likes = {targets[node_id].shape: targets[node_id] for node_id in written}
    of_shape = {shape: variable_targets(meta, like, exclude=targets) for shape, like in likes.items()}
    candidates = {node_id: found for group in of_shape.values() for node_id, found in group.items()}
    try:
        bodies = Bodies(meta, main, library, {**targets, **candidates})
    except VerificationError:
        # Handles of some are mixed up with others: these are no slots.
        candidates = {n: c for n, c in candidates.items() if _is_clear(meta, main, library, c)}
        bodies = Bodies(meta, main, library, {**targets, **candidates})
    contexts = list(bodies.contexts.values())
    influence = Influence(bodies, targets, candidates, captured)
    ends, beside = _ends(contexts, candidates, influence), _beside(contexts)
    like = {owner: {n for n in of_shape[targets[owner].shape] if n in candidates} for owner in written}
    own = {owner: {n for n in like[owner] if _may_be_slot(candidates[n])} for owner in written}
    by_operation = {owner: beside.get(owner, set()) & like[owner] for owner in written}
    closure = Closure(own, ends, by_operation, influence.belongs, influence.updated)
    slots: dict[int, Target] = {}
    for owner in written:
        for slot in sorted(closure.slots_of(owner)):
            if slot in slots:
                refuse("expected a slot of one targeted variable, found one of two", variable=candidates[slot].name)
            frozen = targets[owner].frozen.held_by(candidates[slot].frozen.variable)
            slots[slot] = replace(candidates[slot], frozen=frozen, slot_of=targets[owner])
    if scope is not None:
        # Elsewhere, nothing is masked.
        try:
            bodies = Bodies(meta, main, library, {**targets, **candidates}, scope)
        except VerificationError:
            # What is no slot may be shared with other endpoints.
            bodies = Bodies(meta, main, library, {**targets, **slots}, scope)
        influence = Influence(bodies, targets, candidates, captured)
    return Slots(slots, influence.zeroed(slots))


def _may_be_slot(candidate: Target) -> bool:
    """Whether a variable is neither a weight, which trains by itself, nor a counter."""
    counts = candidate.frozen.variable.dtype.removeprefix("u").startswith(("int", "bool"))
    return not candidate.frozen.variable.trainable and not counts


def _ends(contexts: Iterable[Context], candidates: Mapping[int, Target], influence: Influence) -> dict[int, Ends]:
    """Where the values of all reads of each candidate end."""
    ends: dict[int, Ends] = {candidate: influence.ends.get(candidate, frozenset()) for candidate in candidates}
    for context in contexts:
        if not has_values(context):
            ends |= dict.fromkeys(_seen_in(context) & set(candidates))
        else:
            ends |= dict.fromkeys(_taken_otherwise(context) & set(candidates))
    return ends


def _beside(contexts: Iterable[Context]) -> dict[int, set[int]]:
    """The variables that optimizers' operations take as slots, by the variable that they are slots of."""
    found: dict[int, set[int]] = {}
    for context in contexts:
        for variable, node in _writes(context):
            write = write_of(node)
            if write is not None and write.applies:
                first, *others = (context.variable_of(node.input[position]) for position in write.handles)
                if first == variable:
                    found.setdefault(variable, set()).update(other for other in others if other is not None)
    return found


def _is_clear(
    meta: meta_graph_pb2.MetaGraphDef, main: GraphView, library: Mapping[str, GraphView], candidate: Target
) -> bool:
    try:
        Bodies(meta, main, library, {candidate.node_id: candidate})
    except VerificationError:
        return False
    return True


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
