"""Chains of element-wise operators over tensors that are larger than the processor's caches, found in an ONNX graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

__all__ = ["Chain", "Shape", "find_chains", "read_names"]

Shape = tuple[int, ...]

# Each gives the same bits for a part of a tensor as for the whole, which is not so of the vectorised Exp and Tanh.
_OPERATORS = frozenset(
    [
        *("Abs", "Add", "And", "Cast", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"),
        *("Min", "Mul", "Neg", "Not", "Or", "Reciprocal", "Sign", "Sqrt", "Sub", "Where", "Xor"),
    ]
)
# Between four and thirty megabytes for what one parameter's update has at a time.
_LARGE = 1 << 20
# Of one or two operators little is won.
_FEWEST = 3


@dataclass(frozen=True)
class Chain:
    """Nodes that can run together, part by part: no path leads out of them and back in.

    Attributes:
        shape: Of all that they compute, and of what they take, but for single numbers.
        nodes: Their places in the graph, in order.
    """

    shape: Shape
    nodes: tuple[int, ...]


def find_chains(nodes: Sequence[onnx.NodeProto], shapes: Mapping[str, Shape]) -> list[Chain]:
    """Find the chains of a graph whose tensors are large.

    Args:
        nodes: The nodes. In another order than ONNX demands, no chain is found.
        shapes: Of each tensor whose shape is known.
    """
    producers = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    common = [_common_shape(node, shapes) for node in nodes]
    # How often the longest path to a node leaves a chain: where it has the same length, no path lies between.
    levels: list[int] = []
    chain_of = list(range(len(nodes)))

    def first(place: int) -> int:
        while chain_of[place] != place:
            place = chain_of[place]
        return place

    for place, node in enumerate(nodes):
        before = [producers[name] for name in read_names(node) if name in producers]
        if any(other >= place for other in before):
            return []
        leaves = [common[other] is not None and common[other] != common[place] for other in before]
        levels.append(max((levels[other] + left for other, left in zip(before, leaves, strict=True)), default=0))
        for other in before:
            if common[other] is not None and common[other] == common[place] and levels[other] == levels[place]:
                chain_of[first(place)] = first(other)
    members: dict[int, list[int]] = {}
    for place, shape in enumerate(common):
        if shape is not None:
            members.setdefault(first(place), []).append(place)
    return [Chain(common[places[0]] or (), tuple(places)) for places in members.values() if len(places) >= _FEWEST]


def read_names(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, in its bodies too. Names of a body's own are among them."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from read_names(inner)


def _common_shape(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Shape | None:
    """The shape of what an element-wise node takes and gives, if it is large; None for every other node."""
    if node.domain or node.op_type not in _OPERATORS or len(node.output) != 1:
        return None
    shape = shapes.get(node.output[0])
    if shape is None or math.prod(shape) < _LARGE:
        return None
    for name in node.input:
        found = shapes.get(name)
        if found is None or (found != shape and (math.prod(found) != 1 or len(found) > len(shape))):
            return None
    return shape
