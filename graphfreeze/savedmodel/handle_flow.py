"""How the handles of variables flow through one body: who reads, writes, forwards or otherwise takes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tensorflow.core.framework import node_def_pb2

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import LOOPS, CallSlot, arguments_of, call_slots, forwards_arguments

__all__ = ["READS", "Binding", "Call", "Context", "Flow", "Use", "UseKind", "trace_handles"]

# Operation -> the name of its output, which is the variable's value or a part of it.
READS: Mapping[str, str] = {"ReadVariableOp": "value", "ResourceGather": "output", "ResourceGatherNd": "output"}

_FORWARDING = frozenset({"Identity", "IdentityN"})
_FRAMED = {"Switch": (("output_false", 0), ("output_true", 1)), "Enter": (("output", 0),)}
_HARMLESS = frozenset({"VariableShape", "VarIsInitializedOp", "DisableCopyOnRead", "DestroyResourceOp"})
_WRITE_PREFIXES = ("Assign", "ResourceApply", "ResourceSparseApply", "ResourceScatter", "ResourceStridedSliceAssign")

Binding = tuple[tuple[int, int], ...]
"""Argument position -> object node of the variable whose handle it carries, as sorted pairs."""


class UseKind(Enum):
    """What a node does with a handle that it takes; VALUE is that of a reference, taken without a read."""

    READ = "read"
    VALUE = "value"
    WRITE = "write"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Use:
    """A node that takes the handle of a variable and is neither a call nor known to be harmless.

    Attributes:
        kind: What it does with it.
        node: Its position in the body.
        variable: The object node of the variable.
        reason: Why an OTHER use is not understood; empty for an unknown operation.
    """

    kind: UseKind
    node: int
    variable: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """A function, together with which of its arguments carry the handles of which variables."""

    function: str
    binding: Binding = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A node that calls a function, and the context in which it does."""

    node: int
    slot: CallSlot
    callee: Context


@dataclass
class Flow:
    """What became of the handles in one body.

    Attributes:
        uses: Reads, writes and uses that are not understood, in the order of the nodes.
        calls: Every call of a library function, whether a handle goes there or not, in the order of the nodes.
        returns: Position of the returned tensor -> variable, where a handle is returned.
        handles: Tensor -> variable, of every tensor that carries a handle.
    """

    uses: list[Use] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    returns: dict[int, int] = field(default_factory=dict)
    handles: dict[str, int] = field(default_factory=dict)


def trace_handles(
    body: Body,
    handles: Mapping[str, int],
    functions: Container[str],
    returns_of: Callable[[Context], Mapping[int, int]],
    follow: Callable[[int], bool] = lambda node: True,
) -> Flow:
    """Follow handles through a body.

    Args:
        body: The body.
        handles: Tensor -> variable (object node) to begin with.
        functions: The names of the library's functions.
        returns_of: Which handles a context is known to return so far.
        follow: Whether a node (by position) takes part; handles that enter another one are not looked at.

    Returns:
        The flow. Uses that are not understood are recorded, not raised.
    """
    known = dict(handles)
    pending = list(known)
    taken: defaultdict[int, dict[int, int]] = defaultdict(dict)
    flow = Flow()

    def alias(tensor: str, variable: int, node: int) -> None:
        if tensor not in known:
            known[tensor] = variable
            pending.append(tensor)
        elif known[tensor] != variable:
            flow.uses.append(Use(UseKind.OTHER, node, variable, "it may yield either of two variables"))

    while pending:
        while pending:
            tensor = pending.pop()
            variable = known[tensor]
            for i, position in body.consumers.get(tensor, ()):
                if follow(i):
                    taken[i][position] = variable
                    for name, index in _forwarded(body, i, position):
                        alias(body.output(i, name, index), variable, i)
        for i, inputs in taken.items():
            if body.nodes[i].op not in LOOPS:
                for call in _calls(i, body.nodes[i], inputs, functions):
                    for k, variable in returns_of(call.callee).items():
                        alias(body.output(i, "output", k), variable, i)
    for i, node in enumerate(body.nodes):
        inputs = taken.get(i, {})
        calls = list(_calls(i, node, inputs, functions))
        flow.calls.extend(calls)
        if inputs and not calls:
            flow.uses.extend(_classify(body, i, inputs))
        elif inputs and not all(forwards_arguments(node, call.slot) for call in calls):
            flow.uses.extend(Use(UseKind.OTHER, i, variable) for variable in sorted(set(inputs.values())))
    flow.uses.sort(key=lambda use: use.node)
    flow.handles = known
    flow.returns = {k: known[tensor] for k, tensor in enumerate(body.returned) if tensor in known}
    return flow


def _calls(i: int, node: node_def_pb2.NodeDef, inputs: Mapping[int, int], functions: Container[str]) -> list[Call]:
    return [
        Call(
            i,
            slot,
            Context(
                slot.callee,
                tuple(sorted(arguments_of(node, inputs).items())) if forwards_arguments(node, slot) else (),
            ),
        )
        for slot in call_slots(node, functions)
    ]


def _forwarded(body: Body, i: int, position: int) -> tuple[tuple[str, int], ...]:
    """The outputs of a node that are the handle which it takes at a position."""
    # The branches and loops of TensorFlow 1. Functions have others.
    if body.nodes[i].op in _FRAMED and position == 0 and not body.in_function:
        return _FRAMED[body.nodes[i].op]
    return (("output", position),) if _forwards(body.nodes[i]) else ()


def _forwards(node: node_def_pb2.NodeDef) -> bool:
    """Whether a node's output is the handle that it takes at the same position."""
    if node.op in LOOPS:
        return True
    # With a gradient of its own, an identity does more to the variable than pass its handle on.
    return node.op in _FORWARDING and "_gradient_op_type" not in node.attr


def _classify(body: Body, i: int, inputs: Mapping[int, int]) -> list[Use]:
    """The uses that a node without calls makes of the handles it takes."""
    node = body.nodes[i]
    if node.op in _HARMLESS or all(_forwarded(body, i, position) for position in inputs):
        return []
    if node.op in READS and set(inputs) == {0}:
        return [Use(UseKind.READ, i, inputs[0])]
    kind = UseKind.WRITE if node.op.startswith(_WRITE_PREFIXES) else UseKind.OTHER
    return [Use(kind, i, variable) for variable in sorted(set(inputs.values()))]
