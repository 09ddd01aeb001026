"""Where a body sums up squares, and what is known of them: what is squared, where that ends, and who takes the sum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tensorflow.core.framework import types_pb2

from graphfreeze.passes.same_tensor import first_size, same_tensor, squared_by
from graphfreeze.passes.value_ends import ELEMENTWISE, ELSEWHERE, Norm, ValueEnds, handles_of
from graphfreeze.savedmodel.body import Body, Consumer
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.graph_variables import REFERENCES
from graphfreeze.savedmodel.handle_flow import READS, Context, Flow
from graphfreeze.savedmodel.updates import UpdateKind, update_of

__all__ = ["Square", "SumOfSquares", "find_sums", "indices_of_rows"]

# Operations whose outputs are one list, so that the position in it says which shape is meant.
_ONE_LIST = CALLS | {"IdentityN"}
# Operations whose result consists of elements of their first input, or of sums of some: whose values these are stays.
_REARRANGING = frozenset(
    {
        *("BroadcastTo", "ExpandDims", "GatherNd", "GatherV2", "Reshape", "Slice", "Squeeze", "StridedSlice"),
        *("Tile", "Transpose", "UnsortedSegmentSum"),
    }
)
# Operations besides updates that take indices of rows: which input that is, and where its data type is.
_TAKING_INDICES = {"UnsortedSegmentSum": (1, "Tindices"), "Unique": (0, "T")}


@dataclass(frozen=True, slots=True)
class Square:
    """A tensor whose squares a sum takes.

    Attributes:
        tensor: The tensor.
        ends: The variables in whose updates it ends.
        begins: The variables of whose values it is computed, element by element.
        holds: The same, perhaps with elements in other places.
        height: How many rows its squares have when they are summed up, if rows were brought to their places before.
    """

    tensor: str
    ends: frozenset[int]
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
    """The sums of squares in one body, if it updates anything.

    Args:
        ends: Where values go.
        context: The body.
        targets: The object nodes of the targeted variables.

    Returns:
        Position of the node that sums up -> what is known of it.
    """
    body, flow = ends.model.body(context.function), ends.analysis.contexts[context]
    squares: defaultdict[int, defaultdict[str | None, list[Square]]] = defaultdict(lambda: defaultdict(list))
    if any(update_of(node) for node in body.nodes):
        for norm, square in _squares(ends, context, body, flow):
            squares[norm.node][norm.rows].append(square)
    return {
        node: SumOfSquares(
            found,
            _shape(body, body.tensor(body.nodes[node].input[0])),
            body.nodes[node].attr["T"].type,
            _updated_from(body, flow, node, targets),
            _is_given_out(body, node),
        )
        for node, found in squares.items()
    }


def _squares(ends: ValueEnds, context: Context, body: Body, flow: Flow) -> Iterator[tuple[Norm, Square]]:
    """The sums of squares in a body, each with a tensor that is squared."""
    values = ends.of(context)
    heights: dict[str | None, int | None] = {None: None}
    heights |= {indices: _rows_in_all(ends, body, indices) for indices in indices_of_rows(body)}
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
                placed = _height(ends, body, squared) if rows is None else height
                square = Square(squared, variables, *_values_behind(body, flow, squared), placed)
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


def _rows_in_all(ends: ValueEnds, body: Body, rows: str) -> int | None:
    """How many rows a tensor has into which rows are brought to their places, where that is known."""
    heights = {
        first_size(ends, body, node.input[2])
        for node in body.nodes
        if node.op == "UnsortedSegmentSum" and len(node.input) > 2 and same_tensor(body, node.input[1]) == rows
    }
    return heights.pop() if len(heights) == 1 else None


def _height(ends: ValueEnds, body: Body, tensor: str) -> int | None:
    """How many rows a tensor has whose rows were brought to their places: its static shape may not say so."""
    for _ in body.nodes:
        name, _, output = tensor.partition(":")
        node = body.nodes[body.positions[name]] if name in body.positions else None
        if node is None or node.op not in ("Identity", "IdentityN"):
            placed = node is not None and node.op == "UnsortedSegmentSum" and len(node.input) > 2
            return first_size(ends, body, node.input[2]) if placed and node is not None else None
        tensor = body.tensor(node.input[int(output.rpartition(":")[2])])
    return None


def _shape(body: Body, tensor: str) -> tuple[int, ...] | None:
    """The static shape that a node notes of its output, with -1 for unknown sizes; None where there is none."""
    name, _, output = tensor.partition(":")
    position = body.positions.get(name)
    node = None if position is None else body.nodes[position]
    if node is None or "_output_shapes" not in node.attr:
        return None
    shapes = node.attr["_output_shapes"].list.shape
    index = int(output.rpartition(":")[2])
    if index >= len(shapes) or (len(shapes) > 1 and node.op not in _ONE_LIST) or shapes[index].unknown_rank:
        return None
    return tuple(int(dim.size) for dim in shapes[index].dim)


def _values_behind(body: Body, flow: Flow, tensor: str) -> tuple[frozenset[int], frozenset[int]]:
    """The variables from whose values a tensor is computed, `ELSEWHERE` for unknown ones.

    Returns:
        Those from which it is computed element by element; and those whose elements may be in other places.
    """
    found: tuple[set[int], set[int]] = (set(), set())
    for rearranged, values in enumerate(found):
        pending, seen = [tensor], set[str]()
        while pending:
            position = body.positions.get(pending.pop().split(":", 1)[0])
            node = None if position is None else body.nodes[position]
            if node is None or node.op in REFERENCES:
                values.add(ELSEWHERE)
            elif node.op in READS:
                values.add(flow.handles.get(body.tensor(node.input[0]), ELSEWHERE))
            elif node.name not in seen:
                seen.add(node.name)
                taken = [reference for reference in node.input if not reference.startswith("^")]
                if node.op in ELEMENTWISE or node.op == "IdentityN":
                    pending += taken
                elif rearranged and node.op in _REARRANGING:
                    pending += taken[:1]
    return frozenset(found[0]), frozenset(found[1])


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


def _updated_from(body: Body, flow: Flow, start: int, targets: Collection[int]) -> frozenset[int]:
    """The variables that are updated with what is computed from a node, in whatever way.

    What is stored in other variables on the way, as Adafactor has them, is followed to their reads.
    """
    consumers: dict[str, list[Consumer]] = {}
    for tensor, takers in body.consumers.items():
        consumers.setdefault(tensor.split(":", 1)[0], []).extend(takers)
    pending, seen, found = [start], {start}, set[int]()
    while pending:
        next_nodes = []
        for j, _ in consumers.get(body.nodes[pending.pop()].name, ()):
            update = update_of(body.nodes[j])
            if update is None:
                next_nodes.append(j)
                continue
            variables = handles_of(body, flow, j, update)
            found.update(variables)
            for position, variable in zip(update.handles, variables, strict=True):
                if variable not in targets:
                    handle = body.tensor(body.nodes[j].input[position])
                    next_nodes += [k for k, _ in body.consumers[handle] if body.nodes[k].op in READS]
        fresh = set(next_nodes) - seen
        seen |= fresh
        pending += fresh
    return frozenset(found - {ELSEWHERE})
