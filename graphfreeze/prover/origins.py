"""From which variables a value comes, element by element, found backwards from whoever takes it.

An origin is a variable, of which a tensor holds all elements in their places, or the rows at some indices. Elementwise
operations have the origins of all operands. A gather along axis 0 makes rows of a whole, and a sum into a tensor of the
variable's height makes a whole of rows again, at the same indices. A sum of rows with the same index makes rows again,
each index once. A branch has the origins of what it is given.

Whoever takes a value otherwise is an end of its origins: a write of variables, of everything or at the rows' indices;
a sum or mean over a whole, or over rows at known indices, which may have to be masked; or something else, where the
elements would be mixed up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.frames import Frame, asked_for_zeros, distinct_of, divides, number_of, source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs, integer_attr
from graphfreeze.prover.handles import READS, Context
from graphfreeze.prover.session_graph import takes_value
from graphfreeze.prover.writes import write_of

__all__ = ["ELEMENT_BY_ELEMENT", "NORMS", "End", "Ends", "NormEnd", "Origin", "Origins", "join"]

ELEMENT_BY_ELEMENT = frozenset(
    {
        *("Identity", "Cast", "StopGradient", "SelectV2"),
        *("Add", "AddV2", "AddN", "Sub", "Mul", "MulNoNan", "Div", "RealDiv", "DivNoNan", "SquaredDifference"),
        *("Maximum", "Minimum", "Pow", "Square", "Sqrt", "Rsqrt", "Reciprocal", "Inv", "Neg", "Abs", "Sign"),
        *("Exp", "Log", "Log1p", "Tanh", "IsFinite", "IsNan", "LogicalAnd", "LogicalOr", "LogicalNot"),
        *("Less", "LessEqual", "Greater", "GreaterEqual", "Equal", "NotEqual"),
    }
)
NORMS = frozenset({"L2Loss", "Mean", "Sum"})
"""What sums up the elements of its first input: over all axes, or some."""
SHAPE_ONLY = frozenset({"Shape", "Size", "Rank", "ZerosLike", "OnesLike"})
IFS = frozenset({"If", "StatelessIf"})
KEEPING = ELEMENT_BY_ELEMENT | {"IdentityN", "Any", "GatherV2", "UnsortedSegmentSum"}
"""What may keep elements in their places."""
SOME_ROWS = Tensor("?", "", 0)
"""Indices that nothing else has."""


class NormEnd(NamedTuple):
    """A node that sums up all elements of a value, or those along some axes.

    Attributes:
        context: The body.
        node: The node.
        rows: The indices of the rows that the value consists of; None where it is a whole.
    """

    context: Context
    node: str
    rows: Tensor | None = None


End = int | NormEnd
Ends = frozenset[End] | None
"""The variables in whose writes a value ends, and the sums that take it; None where it ends elsewhere, too."""


@dataclass(frozen=True)
class Origin:
    """Where a tensor's elements come from.

    Attributes:
        variable: The variable.
        rows: The indices of the rows that the tensor consists of; None where it is the whole.
        is_test: Whether the tensor only says whether an element is zero or not a number.
        height: How many rows the variable has; None where it is not known, or has none.
    """

    variable: int
    rows: Tensor | None = None
    is_test: bool = False
    height: int | None = None


Key = tuple[Frame, Tensor]
Part = tuple[Key, Callable[[Origin], Origin | None]]


def join(a: Ends, b: Ends) -> Ends:
    """The ends of a value that has both."""
    return None if a is None or b is None else a | b


class Origins:
    """The origins of the values in one body, and in the branches that it gives them to.

    Args:
        context: The body.
        captured: The tensors of it that custom gradients capture.
        heights: The variables to follow, with how many rows each has; None where it has none.
        marked: Tensors that count as variables, and what they count as.
    """

    def __init__(
        self,
        context: Context,
        captured: Iterable[str],
        heights: Mapping[int, int | None],
        marked: Mapping[Tensor, Iterable[Origin]] | None = None,
    ) -> None:
        self._first = Frame(context)
        self._captured = sorted(captured)
        self._heights = heights
        self._marked = {tensor: frozenset(origins) for tensor, origins in (marked or {}).items()}
        self._known: dict[Key, frozenset[Origin]] = {}

    def ends(self) -> dict[int, Ends]:
        """Where the values of each variable end, of those that end anywhere."""
        found: dict[int, Ends] = {}
        for text in (*self._first.view.returns.values(), *self._captured):
            found |= {origin.variable: None for origin in self._of(self._first, text)}
        work, seen = [self._first], {self._first}
        while work:
            frame = work.pop()
            for node, position in self._taking(frame):
                for origin in self._taken(frame, node, position):
                    end = self._end(frame, node, position, origin)
                    found[origin.variable] = join(found.get(origin.variable, frozenset()), end)
                    if node.op in IFS:
                        fresh = [branch for branch in frame.branches(node) if branch not in seen]
                        seen.update(fresh)
                        work += fresh
        return found

    def _taking(self, frame: Frame) -> Iterator[tuple[node_def_pb2.NodeDef, int]]:
        """The inputs of nodes that may have origins: all behind reads, marked tensors and arguments."""
        context, view = frame.context, frame.view
        names = [node.name for node in view.nodes.values() if node.op in READS and self._heights]
        names += [name for name, _ in context.references if self._heights]
        names += view.arguments if frame.caller is not None else [tensor.node for tensor in self._marked]
        seen = set(names)
        while names:
            for node, position in view.takers.get(names.pop(), ()):
                if not context.counts(node.name):
                    continue
                yield node, position
                if node.name not in seen and node.op in KEEPING | IFS:
                    seen.add(node.name)
                    names.append(node.name)

    def _end(self, frame: Frame, node: node_def_pb2.NodeDef, position: int, origin: Origin) -> Ends:
        """Where a value ends in a node that takes it; nowhere, if the node hands it on."""
        if node.op in IFS:
            division = divides(frame.view, node)
            allowed = (division and origin.is_test) if position == 0 else (division or not origin.is_test)
            return frozenset() if allowed else None
        if self._through(frame, node, position, origin) is not None:
            return frozenset()
        if origin.is_test:
            return None
        if node.op in SHAPE_ONLY:
            return frozenset()
        if node.op in NORMS and position == 0:
            return None if origin.rows == SOME_ROWS else frozenset({NormEnd(frame.context, node.name, origin.rows)})
        write = write_of(node)
        if write is None or position != write.value or write.by_element:
            return None
        at = None if write.indices is None else source_of(frame.view, node.input[write.indices])
        written = [frame.context.variable_of(node.input[handle]) for handle in write.handles]
        known = frozenset(variable for variable in written if variable is not None)
        return known if len(known) == len(written) and at == origin.rows else None

    def _through(self, frame: Frame, node: node_def_pb2.NodeDef, position: int, origin: Origin) -> Origin | None:
        """The origin that a node's result has by one of an operand; None where it does not keep elements in place."""
        if node.op == "IdentityN":
            return origin
        if node.op == "Any":
            asks = origin.is_test or asked_for_zeros(frame.view, node) is not None
            return replace(origin, is_test=True) if asks and position == 0 and origin.rows is None else None
        if origin.is_test:
            return origin if node.op == "Identity" else None
        if node.op in ELEMENT_BY_ELEMENT:
            return origin
        if position != 0 or node.op not in KEEPING or len(data_inputs(node)) < 3:
            return None
        indices = source_of(frame.view, node.input[1])
        number = number_of(frame, node.input[2])
        if node.op == "GatherV2":
            plain = number == 0 and integer_attr(node, "batch_dims") == 0
            return replace(origin, rows=indices) if plain and origin.rows is None else None
        distinct = distinct_of(frame.view, indices)
        if distinct is not None and distinct.repeated == origin.rows:
            return replace(origin, rows=distinct.once)
        whole = number is not None and number == origin.height
        return replace(origin, rows=None) if whole and origin.rows == indices else None

    def _taken(self, frame: Frame, node: node_def_pb2.NodeDef, position: int) -> frozenset[Origin]:
        """The origins of what a node takes as a value."""
        text = data_inputs(node)[position]
        variable = frame.context.variable_of(text)
        if variable is None:
            return self._of(frame, text)
        return self._by_reference(frame, node, position, variable)

    def _by_reference(
        self, frame: Frame, node: node_def_pb2.NodeDef, position: int, variable: int
    ) -> frozenset[Origin]:
        """The origin of what a node takes by a variable's handle or reference: it has one if it takes the value."""
        takes = frame.context.is_reference(data_inputs(node)[position]) and takes_value(node, position)
        if not takes or variable not in self._heights:
            return frozenset()
        return frozenset({Origin(variable, height=self._heights[variable])})

    def _of(self, frame: Frame, text: str) -> frozenset[Origin]:
        """The origins of a tensor: by those of what it is made of, these first."""
        start: Key = (frame, Tensor.parse(text))
        waiting, opened = [start], set[Key]()
        while waiting:
            key = waiting[-1]
            if key in self._known:
                waiting.pop()
                continue
            found, parts = self._parts(key)
            missing = [part for part, _ in parts if part not in self._known]
            if missing:
                if key in opened:
                    refuse("expected no cycle of nodes, found one", function=key[0].view.name, node=key[1].node)
                opened.add(key)
                waiting.extend(missing)
                continue
            waiting.pop()
            found |= {made for part, change in parts for o in self._known[part] if (made := change(o)) is not None}
            if key[0] is self._first:
                found |= self._marked.get(key[1], frozenset())
            self._known[key] = frozenset(found)
        return self._known[start]

    def _parts(self, key: Key) -> tuple[set[Origin], list[Part]]:
        """The origins that a tensor has by itself, and the tensors whose origins it has, with how they change."""
        frame, tensor = key
        node = frame.view.nodes.get(tensor.node)
        if node is None:
            return set(), self._from_caller(frame, tensor.node)
        inputs = data_inputs(node)
        if not frame.context.counts(node.name):
            return set(), []
        variable = frame.context.variable_of(inputs[0]) if inputs and node.op in READS else None
        if variable is not None and variable in self._heights:
            return {Origin(variable, self._rows_read(frame, node), height=self._heights[variable])}, []
        if node.op in IFS:
            return set(), [part for branch in frame.branches(node) for part in self._from_branch(branch, key)]
        own: set[Origin] = set()
        parts: list[Part] = []
        for k, text in enumerate(inputs if node.op in KEEPING else ()):
            if node.op == "IdentityN" and k != tensor.position:
                continue

            def change(origin: Origin, k: int = k) -> Origin | None:
                return self._through(frame, node, k, origin)

            carried = frame.context.variable_of(text)
            if carried is None:
                parts.append(((frame, Tensor.parse(text)), change))
            else:
                taken = self._by_reference(frame, node, k, carried)
                own.update(made for origin in taken if (made := change(origin)) is not None)
        return own, parts

    def _rows_read(self, frame: Frame, node: node_def_pb2.NodeDef) -> Tensor | None:
        if node.op == "ReadVariableOp":
            return None
        plain = node.op == "ResourceGather" and integer_attr(node, "batch_dims") == 0
        return source_of(frame.view, node.input[1]) if plain else SOME_ROWS

    def _from_caller(self, frame: Frame, argument: str) -> list[Part]:
        text = frame.passed(argument)
        caller, call = frame.caller, frame.call
        if text is None or caller is None or call is None:
            return []

        def enter(origin: Origin) -> Origin:
            if origin.rows is None:
                return origin
            same = [name for name in frame.view.arguments if _source(caller, frame.passed(name)) == origin.rows]
            return replace(origin, rows=Tensor.parse(same[0]) if same else SOME_ROWS)

        return [((caller, Tensor.parse(text)), enter)]

    def _from_branch(self, branch: Frame, key: Key) -> list[Part]:
        caller, tensor = key
        text = branch.returned(tensor.position)
        if text is None:
            return []

        def leave(origin: Origin) -> Origin:
            if origin.rows is None:
                return origin
            count = len(branch.view.outputs)
            same = [k for k in range(count) if _source(branch, branch.returned(k)) == origin.rows]
            output = "" if caller.view.definition is None else "output"
            return replace(origin, rows=Tensor(tensor.node, output, same[0]) if same else SOME_ROWS)

        return [((branch, Tensor.parse(text)), leave)]


def _source(frame: Frame, text: str | None) -> Tensor | None:
    return None if text is None else source_of(frame.view, text)
