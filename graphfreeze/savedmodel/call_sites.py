"""Which functions a node calls, and which of their arguments its inputs become."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass

from tensorflow.core.framework import node_def_pb2

__all__ = [
    "CALLS",
    "CASES",
    "CONDITIONALS",
    "LOOPS",
    "CallSlot",
    "arguments_of",
    "call_slots",
    "forwards_arguments",
    "rename_callee",
]

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall"})
LOOPS = frozenset({"While", "StatelessWhile"})
CONDITIONALS = frozenset({"If", "StatelessIf"})
CASES = frozenset({"Case", "StatelessCase"})


@dataclass(frozen=True, slots=True)
class CallSlot:
    """One place in a node that names a function.

    Attributes:
        attribute: The attribute that names it; empty where the node's operation itself is the function.
        index: The position in the attribute's list of functions; None where it holds a single one.
        callee: The function's name.
    """

    attribute: str
    index: int | None
    callee: str


def call_slots(node: node_def_pb2.NodeDef, functions: Container[str]) -> Iterator[CallSlot]:
    """All functions of the library that a node names, in a fixed order."""
    if node.op in functions:
        yield CallSlot("", None, node.op)
    for name in sorted(node.attr):
        value = node.attr[name]
        kind = value.WhichOneof("value")
        if kind == "func" and value.func.name in functions:
            yield CallSlot(name, None, value.func.name)
        elif kind == "list":
            for i, item in enumerate(value.list.func):
                if item.name in functions:
                    yield CallSlot(name, i, item.name)


def forwards_arguments(node: node_def_pb2.NodeDef, slot: CallSlot) -> bool:
    """Whether it is known how the node's inputs become the arguments of that function."""
    return (
        slot.attribute == ""
        or (node.op in CALLS and slot.attribute == "f")
        or (node.op in LOOPS and slot.attribute in ("cond", "body"))
        or (node.op in CONDITIONALS and slot.attribute in ("then_branch", "else_branch"))
        or (node.op in CASES and slot.attribute == "branches")
    )


def arguments_of(node: node_def_pb2.NodeDef, inputs: Mapping[int, int]) -> dict[int, int]:
    """Turn what is known of a call's inputs into what is known of its callee's arguments.

    Args:
        node: A node whose inputs become arguments (see `forwards_arguments`).
        inputs: Input position -> object.

    Returns:
        Argument position -> object: If and Case keep their first input for themselves.
    """
    shift = 1 if node.op in CONDITIONALS or node.op in CASES else 0
    return {position - shift: value for position, value in inputs.items() if position >= shift}


def rename_callee(node: node_def_pb2.NodeDef, slot: CallSlot, name: str) -> None:
    """Make a node call another function in that place."""
    if slot.attribute == "":
        node.op = name
    elif slot.index is None:
        node.attr[slot.attribute].func.name = name
    else:
        node.attr[slot.attribute].list.func[slot.index].name = name
