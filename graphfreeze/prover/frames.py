"""Bodies with who called them, and what is found in them backwards: the same tensors, numbers, tests for zeros."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2, types_pb2

from graphfreeze.prover.constants import Array, decode
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, call_slots, data_inputs
from graphfreeze.prover.handles import BRANCHES, Context
from graphfreeze.prover.operations import IFS

__all__ = [
    "Distinct",
    "Entries",
    "Frame",
    "Given",
    "asked_for_zeros",
    "constant_of",
    "distinct_of",
    "divides",
    "source_of",
]

LIMIT = 10_000
"""How many calls of one body are followed."""
WIDER = {(types_pb2.DT_INT32, types_pb2.DT_INT64), (types_pb2.DT_INT32,) * 2, (types_pb2.DT_INT64,) * 2}


class Entries(NamedTuple):
    """How a body is entered.

    Attributes:
        calls: The bodies that call it, each with the node that does.
        otherwise: Whether it is entered in another way, too.
    """

    calls: Sequence[tuple[Frame, node_def_pb2.NodeDef]]
    otherwise: bool


class Given(NamedTuple):
    """What an argument may be.

    Attributes:
        passed: Tensors that calls pass for it, each with the body where it is.
        unknown: Whether it may be something else, too.
    """

    passed: Sequence[tuple[Frame, str]]
    unknown: bool


@dataclass(eq=False)
class Frame:
    """A body, together with the call by which it is entered.

    Attributes:
        context: The body.
        caller: The body that calls it; None for the first one.
        call: The node that does.
        entries: Tells of a body how it may be entered; for those without a caller.
    """

    context: Context
    caller: Frame | None = None
    call: node_def_pb2.NodeDef | None = None
    entries: Callable[[Context], Entries] | None = None
    _called: dict[tuple[str, str], Frame] = field(default_factory=dict)
    _count: list[int] = field(default_factory=lambda: [0])

    @property
    def view(self) -> GraphView:
        """Its nodes."""
        return self.context.view

    def called(self, node: node_def_pb2.NodeDef, attribute: str) -> Frame | None:
        """The function that a node of it calls, or has for a branch, by the attribute that names it."""
        found = [s for s in call_slots(node, self.context.contexts.library) if s.attribute == attribute]
        if len(found) != 1:
            return None
        key = (node.name, attribute)
        if key not in self._called:
            self._count[0] += 1
            if self._count[0] > LIMIT:
                refuse(f"expected at most {LIMIT} calls to follow, found more", function=self.view.name)
            binding = self.context.binding_of(node, found[0])
            context = self.context.contexts.of(found[0].function, binding)
            self._called[key] = Frame(context, self, node, _count=self._count)
        return self._called[key]

    def branches(self, node: node_def_pb2.NodeDef) -> list[Frame]:
        """The function that a node calls, or the branches of an If that count.

        Where an If divides and found a zero, the branch that it then takes does not count.
        """
        names = ["f"] if node.op not in IFS else ["then_branch", "else_branch"][divides(self.view, node) :]
        return [frame for name in names if (frame := self.called(node, name)) is not None]

    def passed(self, argument: str) -> str | None:
        """What the caller passes for an argument."""
        return None if self.call is None else self._operand(self.call, argument)

    def given(self, argument: str) -> Given:
        """What an argument may be: what the caller passes, or what any caller in the model does."""
        if self.caller is not None:
            text = self.passed(argument)
            return Given([], unknown=True) if text is None else Given([(self.caller, text)], unknown=False)
        entries = Entries([], otherwise=True) if self.entries is None else self.entries(self.context)
        texts = [(frame, self._operand(node, argument)) for frame, node in entries.calls]
        passed = [(frame, text) for frame, text in texts if text is not None]
        return Given(passed, entries.otherwise or not texts or len(passed) < len(texts))

    def _operand(self, call: node_def_pb2.NodeDef, argument: str) -> str | None:
        position = self.view.arguments.get(argument)
        operands = data_inputs(call)[1 if call.op in BRANCHES else 0 :]
        return operands[position] if position is not None and position < len(operands) else None

    def returned(self, position: int) -> str | None:
        """What it returns at a position."""
        names = self.view.outputs
        return self.view.returns.get(names[position]) if position < len(names) else None


def source_of(view: GraphView, text: str) -> Tensor:
    """The tensor that another one is a copy of, if of integers perhaps with more bits."""
    seen: set[Tensor] = set()
    while (tensor := Tensor.parse(text)) not in seen:
        seen.add(tensor)
        node = view.nodes.get(tensor.node)
        types = None if node is None else tuple(node.attr[n].type for n in ("SrcT", "DstT") if n in node.attr)
        if node is None or not (node.op == "Identity" or (node.op == "Cast" and types in WIDER)):
            break
        text = node.input[0]
    return tensor


class Distinct(NamedTuple):
    """Indices of which each is there once.

    Attributes:
        once: These indices.
        repeated: Those of which they were made.
    """

    once: Tensor
    repeated: Tensor


def distinct_of(view: GraphView, positions: Tensor) -> Distinct | None:
    """The distinct indices among which a tensor says, of each of the others, where it is: the results of `Unique`."""
    node = view.nodes.get(positions.node)
    named = view.definition is not None
    wanted = ("idx", 0) if named else ("", 1)
    if node is None or node.op != "Unique" or (positions.output, positions.position) != wanted:
        return None
    return Distinct(Tensor(node.name, "y" if named else "", 0), source_of(view, node.input[0]))


def asked_for_zeros(view: GraphView, node: node_def_pb2.NodeDef | None) -> Tensor | None:
    """Of what a node says whether any element is zero or not a number: `Any(LogicalOr(Equal(x, 0), IsNan(x)))`.

    One more Any may follow: first for each row, then for all of them.
    """
    for _ in range(2):
        if node is not None and node.op == "Any":
            node = view.nodes.get(source_of(view, node.input[0]).node)
    if node is None or node.op != "LogicalOr" or len(node.input) < 2:
        return None
    equal, is_nan = (view.nodes.get(source_of(view, text).node) for text in node.input[:2])
    if equal is None or is_nan is None or (equal.op, is_nan.op) != ("Equal", "IsNan"):
        return None
    compared = constant_of(view, equal.input[1])
    asked = source_of(view, equal.input[0])
    right = compared is not None and compared.shape == () and not compared.astype(bool)
    return asked if right and asked == source_of(view, is_nan.input[0]) else None


def divides(view: GraphView, node: node_def_pb2.NodeDef) -> bool:
    """Whether a node is Keras' division of a sparse tensor: a stateless If, by whether the divisor has zeros."""
    if node.op != "StatelessIf":
        return False
    condition, *operands = data_inputs(node)
    asked = asked_for_zeros(view, view.nodes.get(source_of(view, condition).node))
    return asked is not None and asked in {source_of(view, text) for text in operands}


def constant_of(view: GraphView, text: str) -> Array | None:
    """The constant that a tensor is a copy of; None where it is something else."""
    node = view.nodes.get(source_of(view, text).node)
    is_constant = node is not None and node.op == "Const" and "value" in node.attr
    return decode(node.attr["value"].tensor) if is_constant and node is not None else None
