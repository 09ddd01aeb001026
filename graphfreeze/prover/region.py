"""What is computed from the input of a direction, as long as it is computed from that alone: its pure region."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import Context
from graphfreeze.prover.operations import ELEMENT_BY_ELEMENT, PURE, SHAPE_ONLY
from graphfreeze.prover.shapes import static_shape
from graphfreeze.prover.writes import write_of

__all__ = ["Region", "region_of"]

Key = tuple[str, int]


@dataclass
class Region:
    """A pure region, and how it ends.

    Attributes:
        nodes: The nodes all of whose results are pure.
        identities: The pure ones of the results of an IdentityN, which yields others beside them.
        written: The variables that something pure is written into, as a whole.
        left: Results of elementwise operations on something pure and something else.
    """

    nodes: set[str] = field(default_factory=set)
    identities: set[Key] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    left: set[Tensor] = field(default_factory=set)

    def holds(self, key: Key) -> bool:
        """Whether a tensor is pure."""
        return key[0] in self.nodes or key in self.identities


def region_of(context: Context, start: Key, shape: tuple[int, ...], given_out: Container[Key]) -> Region | None:
    """The pure region behind a tensor.

    Args:
        context: The body.
        start: The tensor.
        shape: The static shape of it, which what leaves the region has, too.
        given_out: The tensors that something takes that is no node of the body.

    Returns:
        The region; None where something pure ends otherwise.
    """
    region, sides = Region(), _Sides(context, start)
    work = [start]
    while work:
        name, position = work.pop()
        if (name, position) in given_out:
            return None
        for node, k in context.view.takers.get(name, ()):
            if Tensor.parse(data_inputs(node)[k]).position != position or not context.counts(node.name):
                continue
            write = write_of(node)
            if write is not None:
                # Whatever is written in part, or is no value, is no update of a whole.
                whole = k == write.value and write.indices is None
                variables = [context.variable_of(node.input[handle]) for handle in write.handles]
                if not whole or None in variables:
                    return None
                region.written.update(variable for variable in variables if variable is not None)
            elif node.op == "IdentityN":
                if (node.name, k) not in region.identities:
                    region.identities.add((node.name, k))
                    work.append((node.name, k))
            elif node.op in SHAPE_ONLY:
                continue
            elif node.op in PURE and all(sides.is_pure(text) for text in data_inputs(node)):
                if node.name not in region.nodes:
                    region.nodes.add(node.name)
                    work += [(node.name, output) for output in _outputs(context, node)]
            elif node.op in ELEMENT_BY_ELEMENT and static_shape(context.view, Tensor(node.name, "", 0)) == shape:
                region.left.add(_result_of(context, node))
            else:
                return None
    return region


class _Sides:
    """Which operands are computed from the start of a region, scalars, constants and shapes alone."""

    def __init__(self, context: Context, start: Key) -> None:
        self._view = context.view
        self._known: dict[Key, bool] = {start: True}

    def is_pure(self, text: str) -> bool:
        """Whether an operand is."""
        first = Tensor.parse(text)
        waiting, opened = [first], set[Key]()
        while waiting:
            tensor = waiting[-1]
            inputs = self._inputs(tensor) if tensor.key not in self._known else []
            missing = [part for part in inputs if part.key not in self._known]
            if missing and tensor.key not in opened:
                opened.add(tensor.key)
                waiting += missing
                continue
            waiting.pop()
            if tensor.key not in self._known:
                self._known[tensor.key] = all(self._known.get(part.key, False) for part in inputs)
        return self._known[first.key]

    def _inputs(self, tensor: Tensor) -> list[Tensor]:
        """What has to be pure so that a tensor is; it is noted of a tensor that is or is not by itself."""
        node = self._view.nodes.get(tensor.node)
        if static_shape(self._view, tensor) == ():
            self._known[tensor.key] = True
        elif node is None or node.op not in PURE:
            self._known[tensor.key] = node is not None and node.op in SHAPE_ONLY | {"Const"}
        elif node.op == "IdentityN":
            return [Tensor.parse(data_inputs(node)[tensor.position])]
        else:
            return [Tensor.parse(text) for text in data_inputs(node)]
        return []


def _outputs(context: Context, node: node_def_pb2.NodeDef) -> set[int]:
    """The positions at which something takes a node's results."""
    takers = context.view.takers.get(node.name, ())
    taken = {Tensor.parse(data_inputs(taker)[k]).position for taker, k in takers}
    return taken | {0}


def _result_of(context: Context, node: node_def_pb2.NodeDef) -> Tensor:
    """The result of a node with one, as its takers spell it."""
    takers = context.view.takers.get(node.name, ())
    spelt = [Tensor.parse(data_inputs(taker)[k]) for taker, k in takers]
    returned = [Tensor.parse(text) for text in context.view.returns.values()]
    return next((t for t in [*spelt, *returned] if t.node == node.name), Tensor(node.name, "", 0))
