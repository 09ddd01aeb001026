"""Which variables are optimizer slots of a targeted variable: their frozen elements have to stay, too.

Optimizers differ in how they keep their slots. An `Apply` operation takes them beside the variable. Keras traces its
optimizers into plain arithmetic: there, a slot is a variable of the same shape that the variable's update is computed
from, element by element, and that nothing else depends on. Holding some elements of such a slot can then change
nothing but these very elements.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterator, Mapping

from graphfreeze.errors import UnsupportedVariableUseError
from graphfreeze.savedmodel.body import Body, Consumer
from graphfreeze.savedmodel.contexts import Analysis, analyse
from graphfreeze.savedmodel.graph_flow import takes_reference
from graphfreeze.savedmodel.handle_flow import Flow, Use, UseKind
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.reads import captured_tensors
from graphfreeze.savedmodel.updates import Update, UpdateKind, update_of
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["ELEMENTWISE", "Values", "find_slots"]

# An element of the result depends on the same element of the operands alone.
ELEMENTWISE = frozenset(
    {
        *("Identity", "Cast", "StopGradient", "AddV2", "Add", "AddN", "Sub", "Mul", "MulNoNan", "RealDiv", "Div"),
        *(
            "DivNoNan",
            "Maximum",
            "Minimum",
            "Pow",
            "SquaredDifference",
            "Square",
            "Sqrt",
            "Rsqrt",
            "Neg",
            "Abs",
            "Sign",
        ),
        *("Reciprocal", "Inv", "Exp", "Log", "Log1p", "Tanh", "SelectV2", "Less", "LessEqual", "Greater"),
        *("GreaterEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "LogicalNot", "IsFinite", "IsNan"),
    }
)
# The result depends on the operand's shape alone.
_OF_SHAPE = frozenset({"Shape", "Size", "Rank", "ZerosLike", "OnesLike"})
_ELSEWHERE = -1
"""Stands for everything that is not the value of a variable."""


def find_slots(model: SavedModel, analysis: Analysis, targets: Mapping[int, FrozenVariable]) -> dict[int, int]:
    """The slots of all targeted variables that the model itself updates.

    Args:
        model: The model.
        analysis: Where the targeted variables' handles go.
        targets: Object node -> targeted variable.

    Returns:
        Object node of the slot -> object node of its variable.

    Raises:
        UnsupportedVariableUseError: An operation takes something as a slot that is none, or is a slot of two variables.
    """
    written = {u.variable for flow in analysis.contexts.values() for u in flow.uses if u.kind is UseKind.WRITE}
    shapes = {targets[node].variable.shape for node in written}
    candidates = {n for n, v in model.variables_by_node.items() if v.shape in shapes and n not in targets}
    if not written or not candidates:
        return {}
    influences, declared = _influences(model, candidates, written)
    slots: dict[int, int] = {}
    for target in sorted(written):
        own = {n for n in candidates if model.variables_by_node[n].shape == targets[target].variable.shape}
        found = declared[target] | _closed(own, influences, target)
        for slot in sorted(found):
            if slots.setdefault(slot, target) != target:
                names = [model.variables_by_node[n].name for n in (slot, target, slots[slot])]
                raise UnsupportedVariableUseError(
                    f"{names[0]} is a slot of two targeted variables, {names[1]} and {names[2]}: which of its elements "
                    "are frozen is not clear. Leave one of them out of the selection."
                )
    return slots


def _closed(candidates: Collection[int], influences: Mapping[int, set[int]], target: int) -> set[int]:
    """The largest set of candidates that influence only the target and one another, and the target in the end."""
    inner = set(candidates)
    while outgoing := {n for n in inner if not influences[n] <= inner | {target}}:
        inner -= outgoing
    reaching = {target}
    while added := {n for n in inner - reaching if influences[n] & (reaching - {n})}:
        reaching |= added
    return reaching - {target}


def _influences(
    model: SavedModel, candidates: set[int], written: set[int]
) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """What each candidate's value reaches, and which candidates `Apply` operations take as whose slots."""
    analysis = analyse(model, frozenset(candidates | written))
    captured = captured_tensors(model)
    reached: dict[int, set[int]] = {node: set() for node in candidates}
    declared: dict[int, set[int]] = {node: set() for node in written}
    for context, flow in analysis.contexts.items():
        body = model.body(context.function)
        seen = Values(body, flow, captured.get(context.function, {}))
        for use in flow.uses:
            update = update_of(body.nodes[use.node]) if use.kind is UseKind.WRITE else None
            if update is not None and update.kind is UpdateKind.APPLY:
                owner, *slots = _handles(body, flow, use.node, update)
                if owner in written:
                    declared[owner].update(slot for slot in slots if slot in candidates)
            if use.variable in candidates:
                reached[use.variable].update(seen.reached_by(use))
    for use in analysis.main_graph.uses:
        if use.variable in candidates:
            reached[use.variable].add(_ELSEWHERE)
    for root in analysis.roots.values():
        for variable in set(analysis.contexts[root].returns.values()) & candidates:
            reached[variable].add(_ELSEWHERE)
    return reached, declared


def _handles(body: Body, flow: Flow, node: int, update: Update) -> list[int]:
    """The variables whose handles an update takes, in its order; one that is not followed is `_ELSEWHERE`."""
    inputs = body.nodes[node].input
    return [flow.handles.get(body.tensor(inputs[position]), _ELSEWHERE) for position in update.handles]


class Values:
    """Where values go in one body."""

    def __init__(self, body: Body, flow: Flow, captured: Container[str]) -> None:
        self._body = body
        self._flow = flow
        self._captured = captured
        self._consumers: defaultdict[str, list[Consumer]] = defaultdict(list)
        for tensor, consumers in body.consumers.items():
            self._consumers[tensor.split(":", 1)[0]] += consumers
        self._returned = {tensor.split(":", 1)[0] for tensor in body.returned}

    def reached_by(self, use: Use) -> set[int]:
        """The variables that what a node does with a candidate ends in; with `_ELSEWHERE` where it ends elsewhere."""
        node = self._body.nodes[use.node]
        if use.kind is UseKind.WRITE and update_of(node) is not None:
            return set()
        if use.kind is UseKind.VALUE and use.node >= 0:
            positions = [k for k in range(len(node.input)) if self._is_value_of(use, k)]
            return {end for k in positions for end in self.ends_at(Consumer(use.node, k))}
        if use.kind is not UseKind.READ:
            return {_ELSEWHERE}
        if node.op not in ("ReadVariableOp", "Identity"):
            return {_ELSEWHERE} if self._consumers[node.name] else set()
        return set(self._follow(node.name))

    def _is_value_of(self, use: Use, position: int) -> bool:
        """Whether a node takes the value of a reference at that input."""
        node = self._body.nodes[use.node]
        if node.input[position].startswith("^") or takes_reference(node, position):
            return False
        return self._flow.handles.get(self._body.tensor(node.input[position])) == use.variable

    def _follow(self, start: str) -> Iterator[int]:
        """Follow a whole value from the node that yields it."""
        pending, seen = [start], {start}
        while pending:
            name = pending.pop()
            if name in self._returned or f"{name}:0" in self._captured:
                yield _ELSEWHERE
            for i, position in self._consumers[name]:
                node = self._body.nodes[i]
                if node.op not in ELEMENTWISE:
                    yield from self.ends_at(Consumer(i, position))
                elif node.name not in seen:
                    seen.add(node.name)
                    pending.append(node.name)

    def ends_at(self, consumer: Consumer) -> Iterator[int]:
        """The variables that a whole value which a node takes ends in."""
        node = self._body.nodes[consumer.node]
        update = update_of(node)
        if node.op in ELEMENTWISE:
            yield from self._follow(node.name)
        elif update is not None and update.indices is None and consumer.input == update.value:
            yield from _handles(self._body, self._flow, consumer.node, update)
        elif node.op not in _OF_SHAPE:
            yield _ELSEWHERE
