"""Where a training step computes norms of what it updates a targeted variable with, as clipping, LAMB and Adafactor do.

Frozen elements have no gradient in a step that is traced anew, so they have no part in such a norm: what is summed up
for it has to be zero there. A sum belongs to a variable when what it sums up is made, element by element, of squares of
tensors each of which

- ends, element by element, in updates of the variable and of its slots, apart from norms,
- does not begin, element by element, with what a variable holds, as weight decay does; or begins with a slot. Where the
  result is given out, as a loss is, it does not begin with rearranged elements of a variable either,

and when its result reaches such an update itself. The rows of a sparse gradient count likewise: at their indices, or
where their squares are first summed into a tensor like the variable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework import types_pb2

from graphfreeze.passes.same_tensor import first_size, same_tensor, squared_by
from graphfreeze.passes.value_ends import ELEMENTWISE, ELSEWHERE, Norm, ValueEnds, handles_of
from graphfreeze.savedmodel.body import Body, Consumer
from graphfreeze.savedmodel.call_sites import CALLS
from graphfreeze.savedmodel.graph_variables import REFERENCES
from graphfreeze.savedmodel.handle_flow import READS, Context, Flow
from graphfreeze.savedmodel.updates import UpdateKind, update_of
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["GradientNorms", "MaskedNorm"]

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
class MaskedNorm:
    """A norm in which frozen elements must have no part.

    Attributes:
        variable: The object node of the variable.
        rows: Where the norm is of some rows: an input of a node with their indices, and the dtype of these.
    """

    variable: int
    rows: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class _Square:
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
class _Sum:
    """A sum of squares.

    Attributes:
        squares: The tensors that are squared, by the indices of the rows that are summed up; None for whole values.
        shape: The static shape of what it takes.
        dtype: The data type of that.
        reaches: The variables that are updated with its result.
        is_given_out: Whether the body may return what is computed from its result.
    """

    squares: Mapping[str | None, list[_Square]]
    shape: tuple[int, ...] | None
    dtype: int
    reaches: frozenset[int]
    is_given_out: bool


class GradientNorms:
    """The norms in the bodies of a model.

    Args:
        ends: Where values go, as far as the handles of targeted variables and slots are followed.
        targets: Object node -> targeted variable.
    """

    def __init__(self, ends: ValueEnds, targets: Mapping[int, FrozenVariable]) -> None:
        self._ends = ends
        self._targets = targets
        self._sums: dict[Context, dict[int, _Sum]] = {}

    def of(self, context: Context, slots: Mapping[int, int]) -> dict[int, MaskedNorm]:
        """The norms in one body.

        Args:
            context: The body.
            slots: Object node of a slot -> that of its variable.

        Returns:
            Position of a node whose first input has to be zero at frozen elements -> of which.
        """
        found = {}
        for node, norm in self._sums_in(context).items():
            for rows, squares in norm.squares.items():
                owners = {slots.get(end, end) for square in squares for end in square.ends}
                owner = owners.pop() if len(owners) == 1 else ELSEWHERE
                own = {slot for slot, variable in slots.items() if variable == owner}
                if owner in self._targets and self.belongs(Norm(context, node, rows), owner, own):
                    body = self._ends.model.body(context.function)
                    found[node] = MaskedNorm(owner, None if rows is None else _indices(body)[rows])
        return found

    def belongs(self, norm: Norm, target: int, slots: Collection[int]) -> bool:
        """Whether a norm has to leave out the frozen elements of a variable.

        Args:
            norm: The norm.
            target: Object node of the variable.
            slots: Object nodes of its slots.
        """
        found = self._sums_in(norm.context).get(norm.node)
        own = {target, *slots}
        variable = self._targets[target].variable
        if found is None or found.dtype != tf.as_dtype(variable.dtype).as_datatype_enum or not found.reaches & own:
            return False
        squares = found.squares.get(norm.rows, [])
        if {square.tensor for squares in found.squares.values() for square in squares} > {s.tensor for s in squares}:
            return False
        for square in squares:
            if not square.ends or not square.ends <= own or not _is_gradient(square, slots, found.is_given_out):
                return False
            if not _fits(found.shape, square.height, variable.shape, norm.rows is not None):
                return False
        return bool(squares)

    def _sums_in(self, context: Context) -> Mapping[int, _Sum]:
        if context not in self._sums:
            body = self._ends.model.body(context.function)
            flow = self._ends.analysis.contexts[context]
            squares: defaultdict[int, defaultdict[str | None, list[_Square]]] = defaultdict(lambda: defaultdict(list))
            if any(update_of(node) for node in body.nodes):
                for norm, square in _squares(self._ends, context, body, flow):
                    squares[norm.node][norm.rows].append(square)
            self._sums[context] = {
                node: _Sum(
                    found,
                    _shape(body, body.tensor(body.nodes[node].input[0])),
                    body.nodes[node].attr["T"].type,
                    _updated_from(body, flow, node, self._targets),
                    _is_given_out(body, node),
                )
                for node, found in squares.items()
            }
        return self._sums[context]


def _is_gradient(square: _Square, slots: Collection[int], is_given_out: bool) -> bool:
    """Whether a tensor may be a gradient, or what an optimizer made of one, by the values that it is computed from."""
    if square.begins:
        return bool(square.begins.intersection(slots))
    return not square.holds or bool(square.holds.intersection(slots)) or not is_given_out


def _fits(found: tuple[int, ...] | None, height: int | None, shape: tuple[int, ...], of_rows: bool) -> bool:
    """Whether what is summed up has a variable's shape, or that of some of its rows."""
    if not found or len(found) != len(shape):
        return found == shape
    # A single row might be spread over others.
    if not of_rows and found[0] == -1 and height is not None and height > 1:
        found = (height, *found[1:])
    return found[1:] == shape[1:] and (of_rows or found[0] == shape[0])


def _squares(ends: ValueEnds, context: Context, body: Body, flow: Flow) -> Iterator[tuple[Norm, _Square]]:
    """The sums of squares in a body, each with a tensor that is squared."""
    values = ends.of(context)
    heights: dict[str | None, int | None] = {None: None}
    heights |= {indices: _rows_in_all(ends, body, indices) for indices in _indices(body)}
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
                square = _Square(squared, variables, *_values_behind(body, flow, squared), placed)
                yield from ((norm, square) for norm in norms)


def _indices(body: Body) -> dict[str, tuple[str, int]]:
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
