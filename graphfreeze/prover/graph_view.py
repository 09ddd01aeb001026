"""One way to look at a FunctionDef and at the main graph: nodes by name, arguments, returns, callees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2

from graphfreeze.prover.failure import refuse

__all__ = [
    "MAIN_GRAPH",
    "CallSlot",
    "GraphView",
    "Tensor",
    "call_slots",
    "data_inputs",
    "entered_by",
    "integer_attr",
]

MAIN_GRAPH = "the main graph"


class Tensor(NamedTuple):
    """A tensor name taken apart: `node`, `node:1` (graphs) or `node:output:1` (functions)."""

    node: str
    output: str
    position: int

    @classmethod
    def parse(cls, text: str) -> Tensor:
        """Parse any of the three spellings. A name that is none of them parses to a node that does not exist."""
        node, _, rest = text.partition(":")
        output, _, index = rest.rpartition(":")
        if rest and not index.isdigit():
            output, index = rest, "0"
        return cls(node, output, int(index or 0))

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the tensor where the node has one output argument, however it is spelt."""
        return self.node, self.position


class CallSlot(NamedTuple):
    """One place in a node that names a function: the operation itself, or an attribute (with its list position)."""

    attribute: str
    position: int | None
    function: str


@dataclass
class GraphView:
    """A function body or the main graph.

    Attributes:
        name: The function's name, or `MAIN_GRAPH`.
        nodes: The nodes by name, in their order.
        arguments: Position by argument name; empty for the main graph.
        outputs: The names of the output arguments, in order; empty for the main graph.
        returns: The returned tensor by output argument name; empty for the main graph.
        definition: The FunctionDef, or None for the main graph.
    """

    name: str
    nodes: dict[str, node_def_pb2.NodeDef]
    arguments: dict[str, int]
    outputs: tuple[str, ...]
    returns: dict[str, str]
    definition: function_pb2.FunctionDef | None = None

    @cached_property
    def takers(self) -> dict[str, list[tuple[node_def_pb2.NodeDef, int]]]:
        """By node or argument, the data inputs that take something of it, each as a node and a position."""
        found: dict[str, list[tuple[node_def_pb2.NodeDef, int]]] = {}
        for node in self.nodes.values():
            for position, text in enumerate(data_inputs(node)):
                found.setdefault(text.partition(":")[0], []).append((node, position))
        return found

    @cached_property
    def naming(self) -> frozenset[str]:
        """The nodes with attributes that name functions."""
        return frozenset(
            name
            for name, node in self.nodes.items()
            if any(v.HasField("func") or v.list.func for v in node.attr.values())
        )

    @classmethod
    def of_function(cls, function: function_pb2.FunctionDef) -> GraphView:
        """View a function of the library."""
        signature = function.signature
        return cls(
            signature.name,
            _by_name(function.node_def, signature.name),
            {argument.name: position for position, argument in enumerate(signature.input_arg)},
            tuple(argument.name for argument in signature.output_arg),
            dict(function.ret),
            function,
        )

    @classmethod
    def of_main_graph(cls, graph: graph_pb2.GraphDef) -> GraphView:
        """View the nodes of the GraphDef itself."""
        return cls(MAIN_GRAPH, _by_name(graph.node, MAIN_GRAPH), {}, (), {})


def entered_by(view: GraphView, text: str) -> str | None:
    """The node by which a handle or reference came into the innermost loop of TensorFlow 1 around it, if any."""
    seen: set[str] = set()
    while view.definition is None and text not in seen:
        seen.add(text)
        node = view.nodes.get(Tensor.parse(text).node)
        inputs = [] if node is None else data_inputs(node)
        if node is None or not inputs:
            break
        if node.op in ("Enter", "RefEnter"):
            return str(node.name)
        text = inputs[0]
    return None


def _by_name(nodes: Iterator[node_def_pb2.NodeDef], function: str) -> dict[str, node_def_pb2.NodeDef]:
    table: dict[str, node_def_pb2.NodeDef] = {}
    for node in nodes:
        if node.name in table:
            refuse("expected node names to be unique, found one twice", function=function, node=node.name)
        table[node.name] = node
    return table


def data_inputs(node: node_def_pb2.NodeDef) -> list[str]:
    """The node's inputs without control inputs."""
    return [text for text in node.input if not text.startswith("^")]


def integer_attr(node: node_def_pb2.NodeDef, name: str, default: int = 0) -> int:
    """An integer attribute. Never indexes a missing key: that would create an empty attribute."""
    return int(node.attr[name].i) if name in node.attr else default


def _slots_of_value(name: str, value: attr_value_pb2.AttrValue) -> Iterator[CallSlot]:
    kind = value.WhichOneof("value")
    if kind == "func":
        yield CallSlot(name, None, value.func.name)
    elif kind == "list":
        for position, function in enumerate(value.list.func):
            yield CallSlot(name, position, function.name)


def call_slots(node: node_def_pb2.NodeDef, library: Mapping[str, GraphView]) -> list[CallSlot]:
    """Every function of the library that the node names, in a fixed order."""
    slots = [CallSlot("op", None, node.op)] if node.op in library else []
    for name in sorted(node.attr):
        slots.extend(slot for slot in _slots_of_value(name, node.attr[name]) if slot.function in library)
    return slots
