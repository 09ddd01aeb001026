"""Where a body sums up squares, and what is known of them: what is squared, where that ends, and who takes the sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tensorflow.core.framework import types_pb2

from graphfreeze.passes.directions import Direction
from graphfreeze.passes.operations import ELEMENTWISE, FOLLOWED
from graphfreeze.passes.places import Norm
from graphfreeze.passes.same_tensor import first_size, same_tensor, squared_by
from graphfreeze.passes.static_shapes import static_shape
from graphfreeze.passes.value_ends import ValueEnds, handles_of
from graphfreeze.passes.values_behind import ELSEWHERE
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CONDITIONALS
from graphfreeze.savedmodel.handle_flow import READS, Context
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


def find_sums(ends: ValueEnds, context: Context, targets: Collection[int]) -> dict[int, SumOfSquares]:
    """The sums of squares in one body, if it takes variables.

    Args:
        ends: Where values go.
        context: The body.
        targets: The object nodes of the targeted variables.

    Returns:
        Position of the node that sums up -> what is known of it.
    """
    body = ends.model.body(context.function)
    squares: defaultdict[int, defaultdict[str | None, list[Square]]] = defaultdict(lambda: defaultdict(list))
    if ends.analysis.contexts[context].handles:
        for norm, square in _squares(ends, context, body):
            squares[norm.node][norm.rows].append(square)
    return {
        node: SumOfSquares(
            found,
            static_shape(body, body.tensor(body.nodes[node].input[0])),
            body.nodes[node].attr["T"].type,
            _updated_from(ends, context, node, targets),
            _is_given_out(body, node),
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


def _is_given_out(body: Body, start: int) -> bool:
    """Whether a body may return what is computed from a node. Main graphs may, whatever their signatures are."""
    if not body.in_function:
        return True
    returned = {tensor.split(":", 1)[0] for tensor in body.returned}
    pending, seen = [start], {start}
    takers: defaultdict[str, set[int]] = defaultdict(set)
    for tensor, consumers in body.consumers.items():
        takers[tensor.split(":", 1)[0]].update(consumer.node for consumer in consumers)
    while pending:
        name = body.nodes[pending.pop()].name
        if name in returned:
            return True
        fresh = takers[name] - seen
        seen |= fresh
        pending += fresh
    return False


def _updated_from(ends: ValueEnds, context: Context, start: int, targets: Collection[int]) -> frozenset[int]:
    """The variables that are updated with what is computed from a node, in whatever way, also by other functions.

    What is stored in other variables on the way, as Adafactor has them, is followed to their reads.
    """
    model, analysis = ends.model, ends.analysis
    begin = (context, model.body(context.function).nodes[start].name)
    pending, seen, found = [begin], {begin}, set[int]()
    while pending:
        place, name = pending.pop()
        body, flow = model.body(place.function), analysis.contexts[place]
        reached: list[tuple[Context, str]] = []
        if any(tensor.split(":", 1)[0] == name for tensor in body.returned):
            reached += [(c.context, model.body(c.context.function).nodes[c.node].name) for c in ends.callers.of(place)]
        for j, k in ends.of(place).takers(name):
            node, update = body.nodes[j], update_of(body.nodes[j])
            if update is None:
                reached.append((place, node.name))
                for callee in ends.callers.called_by(place, j):
                    first = int(node.op in CONDITIONALS)
                    arguments = model.body(callee.function).arguments
                    reached += [(callee, arguments[k - first])] if first <= k < len(arguments) + first else []
                continue
            variables = handles_of(body, flow, j, update)
            found.update(variables)
            for position, variable in zip(update.handles, variables, strict=True):
                if variable not in targets:
                    handle = body.tensor(node.input[position])
                    readers = [body.nodes[taker.node] for taker in body.consumers[handle]]
                    reached += [(place, reader.name) for reader in readers if reader.op in READS]
        fresh = set(reached) - seen
        seen |= fresh
        pending += fresh
    return frozenset(found - {ELSEWHERE})
