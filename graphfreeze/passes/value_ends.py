"""Where a value ends that is computed with element by element: in which variables' updates, or elsewhere.

Besides elementwise operations, a value is followed
- to the rows of it that a gather takes along its first axis, as far as these are computed with element by element, and
  written, or summed up, at the very same indices; rows of the same index may be summed up before,
- through identities of several tensors, as gradient accumulation has them,
- into the branches of If and the functions of calls, and out of them, to all callers of a body.

It also ends in norms: numbers that a node computes from all of its elements, or from all along some axes. And in the
inputs of directions, from which all of its elements are mixed.

Keras 3 divides sparse gradients in one of two branches: where a denominator is zero or not a number, it adds rows. The
test itself, and the branch for that case, do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from graphfreeze.passes.callers import Callers
from graphfreeze.passes.directions import Directions
from graphfreeze.passes.operations import ELEMENTWISE, FOLLOWED, OF_SHAPE, SUMS
from graphfreeze.passes.places import NOWHERE, UNKNOWN_ROWS, AnyEnd, End, Norm, Place, Returned
from graphfreeze.passes.same_tensor import brought_together, divides, first_size, integer, same_tensor, tested_for_zero
from graphfreeze.passes.values_behind import ELSEWHERE, ValuesBehind
from graphfreeze.savedmodel.body import Body, Consumer
from graphfreeze.savedmodel.call_sites import CONDITIONALS
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.graph_flow import takes_reference
from graphfreeze.savedmodel.handle_flow import Context, Flow, Use, UseKind
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.savedmodel.reads import captured_tensors
from graphfreeze.savedmodel.updates import Update, UpdateKind, update_of

__all__ = ["ValueEnds", "Values", "handles_of"]


class ValueEnds:
    """Where values go in the bodies of a model.

    Args:
        model: The model.
        analysis: Where the handles of variables go.
        targets: The object nodes of the targeted variables.

    Attributes:
        callers: The callers of each body.
        behind: From which variables' values a tensor is computed.
        directions: The directions.
    """

    def __init__(self, model: SavedModel, analysis: Analysis, targets: Collection[int]) -> None:
        self.model = model
        self.analysis = analysis
        self.callers = Callers(model, analysis)
        self.behind = ValuesBehind(model, analysis, self.callers)
        self.directions = Directions(self, targets)
        self._captured: Mapping[str, Iterable[str]] = captured_tensors(model)
        self._values: dict[Context, Values] = {}

    def of(self, context: Context) -> Values:
        """Where values go in one body."""
        if context not in self._values:
            captured = frozenset(self._captured.get(context.function, ()))
            self._values[context] = Values(self, context, captured)
        return self._values[context]

    def outside(self, context: Context, ends: Iterable[AnyEnd]) -> set[End]:
        """The ends of a value in a body, and where what the body returns of it ends in all callers."""
        found, seen = set[End](), set[tuple[Context, Returned]]()
        pending = [(context, end) for end in ends]
        while pending:
            place, end = pending.pop()
            if not isinstance(end, Returned):
                found.add(end)
            elif (place, end) not in seen:
                seen.add((place, end))
                if self.callers.is_run_otherwise(place) or not self.callers.of(place):
                    found.add(ELSEWHERE)
                for caller in self.callers.of(place):
                    values = self.of(caller.context)
                    pending += [(caller.context, further) for further in values.after_call(caller.node, end)]
        return found


class Values:
    """Where values go in one body."""

    def __init__(self, bodies: ValueEnds, context: Context, captured: frozenset[str]) -> None:
        self._bodies = bodies
        self._context = context
        self._body: Body = bodies.model.body(context.function)
        self._flow: Flow = bodies.analysis.contexts[context]
        self._captured = captured
        self._consumers: defaultdict[str, list[Consumer]] = defaultdict(list)
        for tensor, consumers in self._body.consumers.items():
            self._consumers[tensor.split(":", 1)[0]] += consumers
            if ":" in tensor:
                self._consumers[tensor] += consumers
        self._returned: defaultdict[str, list[int]] = defaultdict(list)
        for position, tensor in enumerate(self._body.returned):
            for name in {tensor, tensor.split(":", 1)[0]}:
                self._returned[name].append(position)
        self._ends: dict[Place, frozenset[AnyEnd]] = {}

    def reached_by(self, use: Use) -> set[End]:
        """Where what a node does with a candidate ends."""
        node = self._body.nodes[use.node]
        if use.kind is UseKind.WRITE and update_of(node) is not None:
            return set()
        if use.kind is UseKind.VALUE and use.node >= 0:
            positions = [k for k in range(len(node.input)) if self._is_value_of(use, k)]
            return {end for k in positions for end in self.ends_at(Consumer(use.node, k))}
        if use.kind is not UseKind.READ:
            return {ELSEWHERE}
        shape = self._bodies.model.variables_by_node[use.variable].shape
        place = Place(node.name, shape[0] if shape else None)
        if node.op == "ResourceGather" and not integer(node, "batch_dims"):
            place = replace(place, rows=same_tensor(self._body, node.input[1]))
        elif node.op not in ("ReadVariableOp", "Identity"):
            place = replace(place, rows=UNKNOWN_ROWS)
        return self._outside(self._follow(place))

    def ends_at(self, consumer: Consumer, rows: str | None = None, count: int | None = None) -> set[End]:
        """Where a value ends that a node takes.

        Args:
            consumer: The node.
            rows: The indices of the rows that the value consists of, if it is not whole.
            count: How many rows the variable has that it is the gradient of, where that is known.
        """
        ends: set[AnyEnd] = set()
        for step in self._steps(consumer, Place("", count, rows)):
            ends |= self._follow(step) if isinstance(step, Place) else {step}
        return self._outside(ends)

    def ends_of(self, node: int, rows: str | None = None, count: int | None = None) -> set[End]:
        """Where what a node yields ends, taken as a whole value or as rows: see `ends_at`."""
        return self._outside(self._follow(Place(self._body.nodes[node].name, count, rows)))

    def after_call(self, node: int, end: Returned) -> frozenset[AnyEnd]:
        """Where a value ends that the function of a call returns."""
        return self._follow(self._out_of(node, end))

    def takers(self, name: str) -> Sequence[Consumer]:
        """The inputs that take a tensor; or anything that a node yields."""
        return self._consumers.get(name, ())

    def is_given_out(self, name: str) -> bool:
        """Whether the body returns a tensor or something that a node yields, or a custom gradient captures it."""
        return name in self._returned or f"{name.split(':', 1)[0]}:0" in self._captured

    def _outside(self, ends: Iterable[AnyEnd]) -> set[End]:
        return self._bodies.outside(self._context, ends)

    def _is_value_of(self, use: Use, position: int) -> bool:
        """Whether a node takes the value of a reference at that input."""
        node = self._body.nodes[use.node]
        if node.input[position].startswith("^") or takes_reference(node, position):
            return False
        return self._flow.handles.get(self._body.tensor(node.input[position])) == use.variable

    def _follow(self, start: Place) -> frozenset[AnyEnd]:
        """Follow a value from a place."""
        if start not in self._ends:
            # A function that calls itself gets no better answer than this.
            self._ends[start] = frozenset({ELSEWHERE})
            pending, seen, ends = [start], {start}, set[AnyEnd]()
            while pending:
                place = pending.pop()
                ends.update(self._leaving(place))
                takers: Iterable[Consumer] = self._consumers.get(place.tensor, ())
                direction = self._bodies.directions.at(self._context, place.tensor) if place.rows is None else None
                if direction is not None and not place.is_test:
                    ends.add(direction)
                    takers = [taker for taker in takers if update_of(self._body.nodes[taker.node]) is not None]
                for consumer in takers:
                    for step in self._steps(consumer, place):
                        if not isinstance(step, Place):
                            ends.add(step)
                        elif step not in seen:
                            seen.add(step)
                            pending.append(step)
            self._ends[start] = frozenset(ends)
        return self._ends[start]

    def _leaving(self, place: Place) -> Iterator[AnyEnd]:
        """How a value at a place leaves the body, other than through a node."""
        name = place.tensor.split(":", 1)[0]
        if f"{name}:0" in self._captured:
            yield ELSEWHERE
        for position in self._returned.get(place.tensor, ()):
            found = None
            if place.rows is not None:
                same = (k for k, t in enumerate(self._body.returned) if same_tensor(self._body, t) == place.rows)
                found = next(same, NOWHERE)
            yield Returned(position, found, place.count, place.is_test)

    def _steps(self, consumer: Consumer, place: Place) -> Iterator[Place | AnyEnd]:
        """Where a node takes a value on to, and where it ends in it."""
        node = self._body.nodes[consumer.node]
        if node.op in FOLLOWED:
            yield from self._into_functions(consumer, place)
        elif node.op == "IdentityN":
            yield replace(place, tensor=self._body.output(consumer.node, "output", consumer.input))
        elif node.op == "Any" and consumer.input == 0 and place.rows is None:
            is_test = place.is_test or tested_for_zero(self._body, node.name) is not None
            yield replace(place, tensor=node.name, is_test=True) if is_test else ELSEWHERE
        elif place.is_test:
            yield replace(place, tensor=node.name) if node.op == "Identity" else ELSEWHERE
        elif node.op in ELEMENTWISE:
            yield replace(place, tensor=node.name)
        elif node.op in ("GatherV2", "UnsortedSegmentSum") and consumer.input == 0 and len(node.input) > 2:
            yield self._by_rows(consumer.node, place)
        elif node.op in SUMS and consumer.input == 0 and place.rows != UNKNOWN_ROWS:
            yield Norm(self._context, consumer.node, place.rows)
        elif node.op not in OF_SHAPE:
            yield from self._in_update(consumer, place)

    def _by_rows(self, i: int, place: Place) -> Place | AnyEnd:
        """The rows of a whole value; or the sum of rows, each at its place in a whole value."""
        node = self._body.nodes[i]
        indices = same_tensor(self._body, node.input[1])
        if node.op == "GatherV2":
            along_rows = first_size(self._bodies, self._context, node.input[2]) == 0 and not integer(node, "batch_dims")
            return replace(place, tensor=node.name, rows=indices) if along_rows and place.rows is None else ELSEWHERE
        together = brought_together(self._body, node.input[1])
        if together is not None and together.indices == place.rows:
            return replace(place, tensor=node.name, rows=together.each_once)
        # With fewer rows than the variable's, the sum might be spread over all of its rows.
        is_whole = place.count is not None and first_size(self._bodies, self._context, node.input[2]) == place.count
        return replace(place, tensor=node.name, rows=None) if is_whole and place.rows == indices else ELSEWHERE

    def _in_update(self, consumer: Consumer, place: Place) -> Iterator[int]:
        node = self._body.nodes[consumer.node]
        update = update_of(node)
        rows: str | None = UNKNOWN_ROWS
        if update is not None and consumer.input == update.value and update.kind is not UpdateKind.ELEMENTS:
            rows = None if update.indices is None else same_tensor(self._body, node.input[update.indices])
        if update is None or rows == UNKNOWN_ROWS or rows != place.rows:
            yield ELSEWHERE
        else:
            yield from handles_of(self._body, self._flow, consumer.node, update)

    def _into_functions(self, consumer: Consumer, place: Place) -> Iterator[Place | AnyEnd]:
        """Follow a value into the functions of an If or a call, and what they return of it."""
        i, position = consumer
        body, node = self._body, self._body.nodes[i]
        is_division, first = divides(body, node), int(node.op in CONDITIONALS)
        operands = [same_tensor(body, reference) for reference in node.input if not reference.startswith("^")]
        if position < first or (place.is_test and not is_division):
            if not (is_division and place.is_test):
                yield ELSEWHERE
            return
        for call in self._flow.calls:
            if call.node != i or (is_division and call.slot.attribute == "then_branch"):
                continue
            inner = self._bodies.of(call.callee)
            arguments = self._bodies.model.body(call.callee.function).arguments
            if len(arguments) != len(operands) - first:
                yield ELSEWHERE
                continue
            rows = None if place.rows is None else UNKNOWN_ROWS
            if place.rows in operands[first:]:
                rows = arguments[operands.index(place.rows, first) - first]
            for end in inner._follow(replace(place, tensor=arguments[position - first], rows=rows)):
                yield self._out_of(i, end) if isinstance(end, Returned) else end

    def _out_of(self, node: int, end: Returned) -> Place:
        """The place of a value that the function of a call returns."""
        rows = None if end.indices is None else UNKNOWN_ROWS
        if end.indices is not None and end.indices != NOWHERE:
            rows = self._body.output(node, "output", end.indices)
        return Place(self._body.output(node, "output", end.position), end.count, rows, end.is_test)


def handles_of(body: Body, flow: Flow, node: int, update: Update) -> list[int]:
    """The variables whose handles an update takes, in its order; one that is not followed is `ELSEWHERE`."""
    inputs = body.nodes[node].input
    return [flow.handles.get(body.tensor(inputs[position]), ELSEWHERE) for position in update.handles]
