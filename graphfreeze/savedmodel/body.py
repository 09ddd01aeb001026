"""The nodes of a function, or of the main graph, with an index of who consumes which tensor.

A tensor is `node:output:index` in a function, where an argument is its bare name, and `node:index` in the main graph.
The index writes every tensor in that full form, whatever shorthand the node uses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from tensorflow.core.framework import function_pb2, node_def_pb2

__all__ = ["Body", "Consumer", "function_body", "main_graph_body"]


class Consumer(NamedTuple):
    """An input of a node: the position of the node in the body, and of the input in the node."""

    node: int
    input: int


@dataclass(frozen=True)
class Body:
    """A function's body, or the main graph.

    Attributes:
        nodes: The nodes, in the order of the file.
        consumers: Tensor -> the data inputs that take it; of a graph of TensorFlow 1, without those that save.
        arguments: The tensors of the function's arguments, in order; empty for the main graph.
        returned: The tensors that the function returns, in order; of the main graph of TensorFlow 1, those that its
            signatures give out; of other main graphs none.
        in_function: Which of the two it is.
        argument_shapes: What the function notes of the static shapes of its arguments, by position; -1 where a size is
            not known. An argument of which nothing is noted, or not even the rank, is missing.
    """

    nodes: Sequence[node_def_pb2.NodeDef]
    consumers: dict[str, list[Consumer]]
    arguments: tuple[str, ...]
    returned: tuple[str, ...]
    in_function: bool
    argument_shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def output(self, node: int, name: str, index: int) -> str:
        """The tensor that is element `index` of a node's output `name` (its only output list)."""
        if self.in_function:
            return f"{self.nodes[node].name}:{name}:{index}"
        return f"{self.nodes[node].name}:{index}"

    @cached_property
    def positions(self) -> dict[str, int]:
        """Name of a node -> its position."""
        return {node.name: i for i, node in enumerate(self.nodes)}

    def tensor(self, reference: str) -> str:
        """An input reference in full form."""
        return _full(reference, self.in_function)


def function_body(function: function_pb2.FunctionDef) -> Body:
    """The body of a function of the library."""
    return Body(
        nodes=function.node_def,
        consumers=_consumers(function.node_def, in_function=True),
        arguments=tuple(argument.name for argument in function.signature.input_arg),
        returned=tuple(_full(function.ret[output.name], True) for output in function.signature.output_arg),
        in_function=True,
        argument_shapes=dict(_argument_shapes(function)),
    )


def _argument_shapes(function: function_pb2.FunctionDef) -> Iterator[tuple[int, tuple[int, ...]]]:
    for position, noted in function.arg_attr.items():
        shapes = noted.attr["_output_shapes"].list.shape if "_output_shapes" in noted.attr else []
        if len(shapes) == 1 and not shapes[0].unknown_rank:
            yield position, tuple(int(dim.size) for dim in shapes[0].dim)


def main_graph_body(
    nodes: Sequence[node_def_pb2.NodeDef], returned: Iterable[str] = (), skip: Container[int] = ()
) -> Body:
    """The main graph as a body.

    Args:
        nodes: Its nodes.
        returned: The tensors that count as returned.
        skip: The positions of nodes that do not count as consumers.
    """
    consumers = _consumers(nodes, in_function=False, skip=skip)
    return Body(nodes, consumers, (), tuple(_full(tensor, False) for tensor in returned), in_function=False)


def _consumers(
    nodes: Sequence[node_def_pb2.NodeDef], in_function: bool, skip: Container[int] = ()
) -> dict[str, list[Consumer]]:
    consumers: defaultdict[str, list[Consumer]] = defaultdict(list)
    for i, node in enumerate(nodes):
        for k, reference in enumerate(node.input if i not in skip else ()):
            if not reference.startswith("^"):
                consumers[_full(reference, in_function)].append(Consumer(i, k))
    return dict(consumers)


def _full(reference: str, in_function: bool) -> str:
    colons = reference.count(":")
    if in_function:
        return f"{reference}:0" if colons == 1 else reference
    return reference if colons else f"{reference}:0"
