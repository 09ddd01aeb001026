"""Where a body sums up squares, and what is known of them: what is squared, where that ends, and who takes the sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tensorflow.core.framework import types_pb2

from graphfreeze.passes.directions import Direction
from graphfreeze.passes.influence import Influence
from graphfreeze.passes.operations import ELEMENTWISE, FOLLOWED
from graphfreeze.passes.places import Norm
from graphfreeze.passes.same_tensor import first_size, same_tensor, squared_by
from graphfreeze.passes.static_shapes import static_shape
from graphfreeze.passes.value_ends import ValueEnds
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.savedmodel.updates import UpdateKind, update_of

__all__ = ["Square", "SumOfSquares", "find_sums", "indices_of_rows"]

# Operations besides updates that take indices of rows: which input that is, and where its data type is.
_TAKING_INDICES = {"UnsortedSegmentSum": (1, "Tindices"), "Unique": (0, "T")}


@dataclass(frozen=True, slots=True)
class Square:
    """A tensor whose squares a sum takes.

    Attributes:
        tensor: The tensor.
        ends: The variables in whose updates it ends, and the directions.
        begins: The variables of whose values it is computed, element by element.
        holds: The same, perhaps with elements in other places.
        height: How many rows its squares have when they are summed up, if rows were brought to their places before.
    """

    tensor: str
    ends: frozenset[int | Direction]
    begins: frozenset[int]
    holds: frozenset[int]
    height: int | None


@dataclass(frozen=True, slots=True)
class SumOfSquares:
    """A sum of squares.

    Attributes:
        squares: The tensors that are squared, by the indices of the rows that are summed up; None for whole values.
        shape: The static shape of what it takes.
        dtype: The data type of that.
        reaches: The variables that are updated with its result.
        is_given_out: Whether the body may return what is computed from its result.
    """

    squares: Mapping[str | None, list[Square]]
    shape: tuple[int, ...] | None
    dtype: int
    reaches: frozenset[int]
    is_given_out: bool


def find_sums(ends: ValueEnds, influence: Influence, context: Context) -> dict[int, SumOfSquares]:
    """The sums of squares in one body.

    Args:
        ends: Where values go.
        influence: What depends on nodes.
        context: The body.

    Returns:
        Position of the node that sums up -> what is known of it.
    """
    body = ends.model.body(context.function)
    squares: defaultdict[int, defaultdict[str | None, list[Square]]] = defaultdict(lambda: defaultdict(list))
    for norm, square in _squares(ends, context, body):
        squares[norm.node][norm.rows].append(square)
    return {
        node: SumOfSquares(
            found,
            static_shape(body, body.tensor(body.nodes[node].input[0])),
            body.nodes[node].attr["T"].type,
            influence.updates_from(context, node),
            influence.is_given_out(context, node),
        )
        for node, found in squares.items()
    }


def _squares(ends: ValueEnds, context: Context, body: Body) -> Iterator[tuple[Norm, Square]]:
    """The sums of squares in a body, each with a tensor that is squared."""
    values = ends.of(context)
    heights: dict[str | None, int | None] = {None: None}
    heights |= {indices: _rows_in_all(ends, context, indices) for indices in indices_of_rows(body)}
    for i, node in enumerate(body.nodes):
        squared = body.tensor(node.input[0]) if node.op == "L2Loss" else squared_by(body, node)
        for rows, height in heights.items() if squared is not None else ():
            assert squared is not None
            if node.op == "L2Loss":
                norms = {Norm(context, i, rows)}
            else:
                found = values.ends_of(i, rows, height)
                norms = {e for e in found if isinstance(e, Norm) and e.context == context and e.rows in (rows, None)}
            if norms:
                taken = {end for taker in body.consumers[squared] for end in values.ends_at(taker, rows, height)}
                variables = frozenset(end for end in taken if not isinstance(end, Norm))
                placed = _height(ends, context, squared) if rows is None else height
                begins, holds = (ends.behind.of(context, squared, rearranged=kind) for kind in (False, True))
                square = Square(squared, variables, begins, holds, placed)
                yield from ((norm, square) for norm in norms)


def indices_of_rows(body: Body) -> dict[str, tuple[str, int]]:
    """The tensors with indices of rows in a body, each as an input of a node, and with its data type."""
    found: dict[str, tuple[str, int]] = {}
    for node in body.nodes:
        update = update_of(node)
        position, dtype = _TAKING_INDICES.get(node.op, (None, "Tindices"))
        if update is not None and update.kind is not UpdateKind.ELEMENTS:
            position = update.indices
        if position is not None and node.attr[dtype].type in (types_pb2.DT_INT32, types_pb2.DT_INT64):
            reference = node.input[position]
            found.setdefault(same_tensor(body, reference), (reference, node.attr[dtype].type))
    return found


def _rows_in_all(ends: ValueEnds, context: Context, rows: str) -> int | None:
    """How many rows a tensor has into which rows are brought to their places, where that is known."""
    body = ends.model.body(context.function)
    heights = {
        first_size(ends, context, node.input[2])
        for node in body.nodes
        if node.op == "UnsortedSegmentSum" and len(node.input) > 2 and same_tensor(body, node.input[1]) == rows
    }
    return heights.pop() if len(heights) == 1 else None


def _height(ends: ValueEnds, context: Context, tensor: str) -> int | None:
    """How many rows a tensor has that is made of rows brought to their places: its static shape may not say so."""
    pending, seen, heights = [(context, tensor)], set[tuple[Context, str]](), set[int]()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        body = ends.model.body(place[0].function)
        position = body.positions.get(place[1].split(":", 1)[0])
        node = None if position is None else body.nodes[position]
        if node is None and place[1] in body.arguments:
            k = body.arguments.index(place[1])
            for caller in ends.callers.of(place[0]):
                outer = ends.model.body(caller.context.function)
                pending.append((caller.context, outer.tensor(outer.nodes[caller.node].input[caller.first + k])))
        elif position is not None and node is not None and node.op in FOLLOWED:
            k = int(place[1].rpartition(":")[2])
            inner = [
                (callee, ends.model.body(callee.function)) for callee in ends.callers.called_by(place[0], position)
            ]
            pending += [(callee, made.returned[k]) for callee, made in inner if k < len(made.returned)]
        elif node is not None and node.op == "UnsortedSegmentSum" and len(node.input) > 2:
            size = first_size(ends, place[0], node.input[2])
            heights |= set() if size is None else {size}
        elif node is not None and (node.op in ELEMENTWISE or node.op == "IdentityN"):
            pending += [(place[0], body.tensor(text)) for text in node.input if not text.startswith("^")]
    return max(heights, default=None)
