"""Squares of a tensor, and the nodes of the same body that sum them up: what may be a norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.behind import parts_of
from graphfreeze.prover.frames import Frame, constant_of, source_of
from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.handles import Context
from graphfreeze.prover.operations import ELEMENT_BY_ELEMENT, NORMS
from graphfreeze.prover.shapes import static_shape
from graphfreeze.prover.static_numbers import number_of
from graphfreeze.prover.writes import write_of

__all__ = ["Squared", "squares"]


class Squared(NamedTuple):
    """A tensor whose squares a node sums up, after nothing but operations element by element.

    What the tensor is, is an assumption: a whole, or rows at some indices of the body.

    Attributes:
        tensor: The tensor.
        norm: The node that sums up.
        shape: The static shape of what it sums up.
        rows: The indices of the rows that the tensor consists of; None where it is a whole.
        summed: The indices of the rows that the node sums up then; None where that is a whole, as it is after
            `UnsortedSegmentSum` brought rows to their places.
    """

    tensor: Tensor
    norm: str
    shape: tuple[int, ...]
    rows: Tensor | None
    summed: Tensor | None


class _Placed(NamedTuple):
    """Where rows are brought to: their indices, and how many rows the whole has."""

    rows: Tensor
    height: int


def squares(frame: Frame) -> Iterator[Squared]:
    """Every tensor of a body whose squares a node of the same body sums up; those without a static shape are none.

    Each is given once for everything that it may be so that a norm may have a meaning.
    """
    context = frame.context
    indices = _row_indices(context)
    for node in context.view.nodes.values():
        squared = _squared_by(context.view, node) if context.counts(node.name) else None
        if squared is None:
            continue
        for norm, placed in [(node, None)] if node.op == "L2Loss" else _summing(frame, node):
            shape = _summed_shape(frame, norm)
            if shape is None:
                continue
            if placed is not None:
                yield Squared(squared, norm.name, (placed.height, *shape[1:]), placed.rows, None)
                continue
            for rows in (None, *indices):
                yield Squared(squared, norm.name, shape, rows, rows)


def _row_indices(context: Context) -> list[Tensor]:
    """All indices by which a body writes rows, sums them up into a whole, or finds those that have the same."""
    found: dict[Tensor, None] = {}
    for node in filter(lambda node: context.counts(node.name), context.view.nodes.values()):
        write, inputs = write_of(node), data_inputs(node)
        position = {"UnsortedSegmentSum": 1, "Unique": 0}.get(node.op)
        if write is not None and not write.by_element:
            position = write.indices
        if position is not None and position < len(inputs):
            found[source_of(context.view, inputs[position])] = None
    return list(found)


def _squared_by(view: GraphView, node: node_def_pb2.NodeDef) -> Tensor | None:
    """The tensor that a node squares."""
    inputs = data_inputs(node)
    if node.op in ("L2Loss", "Square") and inputs:
        return Tensor.parse(inputs[0])
    if node.op == "Pow" and len(inputs) == 2 and _is_two(view, inputs[1]):
        return Tensor.parse(inputs[0])
    if node.op == "Mul" and len(inputs) == 2:
        one, other = (source_of(view, text) for text in inputs)
        return Tensor.parse(inputs[0]) if one == other else None
    return None


def _is_two(view: GraphView, text: str) -> bool:
    seen: set[str] = set()
    while text not in seen:
        seen.add(text)
        node = view.nodes.get(Tensor.parse(text).node)
        if node is None or node.op not in ("Identity", "Cast"):
            break
        text = node.input[0]
    array = constant_of(view, text)
    return array is not None and array.shape == () and bool(array == 2)


def _summing(frame: Frame, square: node_def_pb2.NodeDef) -> Iterator[tuple[node_def_pb2.NodeDef, _Placed | None]]:
    """The nodes that sum up what is made of a node's result, and where rows were brought to on the way."""
    start: tuple[tuple[str, int], _Placed | None] = ((square.name, 0), None)
    work, seen = [start], {start}
    summing: set[tuple[str, _Placed | None]] = set()
    while work:
        key, placed = work.pop()
        for node, position in frame.view.takers.get(key[0], ()):
            if Tensor.parse(data_inputs(node)[position]).key != key or not frame.context.counts(node.name):
                continue
            if node.op in NORMS and position == 0 and (node.name, placed) not in summing:
                summing.add((node.name, placed))
                yield node, placed
            after = _after(frame, node, position, placed)
            if after is not None and after not in seen:
                seen.add(after)
                work.append(after)


def _after(
    frame: Frame, node: node_def_pb2.NodeDef, position: int, placed: _Placed | None
) -> tuple[tuple[str, int], _Placed | None] | None:
    """The result of a node that keeps elements in their places, or brings rows to theirs."""
    if node.op == "IdentityN":
        return (node.name, position), placed
    if node.op in ELEMENT_BY_ELEMENT:
        return (node.name, 0), placed
    inputs = data_inputs(node)
    if node.op != "UnsortedSegmentSum" or position != 0 or placed is not None or len(inputs) < 3:
        return None
    height = number_of(frame, inputs[2])
    return None if height is None else ((node.name, 0), _Placed(source_of(frame.view, inputs[1]), height))


def _summed_shape(frame: Frame, norm: node_def_pb2.NodeDef) -> tuple[int, ...] | None:
    """The static shape of what a node sums up.

    What is made of a sum of rows has as many as these are brought to, which the model does not note.
    """
    tensor = Tensor.parse(norm.input[0])
    shape = static_shape(frame.view, tensor)
    if not shape or shape[0] != -1:
        return shape
    heights: set[int] = set()
    work, seen = [(frame, tensor)], {(frame, tensor)}
    while work:
        at, made = work.pop()
        node = at.view.nodes.get(made.node)
        if node is not None and node.op == "UnsortedSegmentSum":
            height = number_of(at, node.input[2])
            heights.update([] if height is None else [height])
        parts = parts_of(at, made)
        fresh = [part for part in parts.tensors if part not in seen] if parts is not None else []
        seen.update(fresh)
        work += fresh
    return (max(heights, default=-1), *shape[1:])
