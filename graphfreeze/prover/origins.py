"""From which variables a value comes, element by element, found backwards from whoever takes it.

An origin is a variable, of which a tensor holds all elements in their places, or the rows at some indices. Elementwise
operations have the origins of all operands. A gather along axis 0 makes rows of a whole, and a sum into a tensor of the
variable's height makes a whole of rows again, at the same indices. A sum of rows with the same index makes rows again,
each index once. What a branch or a function returns has the origins that it has there, and an argument those of what
the call passes. So what a body gives to its callers is looked for in these; each body is also looked at by itself.

Whoever takes a value otherwise is an end of its origins: a write of variables, of everything or at the rows' indices;
a sum or mean over a whole, or over rows at known indices, which may have to be masked; the beginning of a direction;
or something else, where the elements would be mixed up.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import replace

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.bodies import Bodies, has_values
from graphfreeze.prover.ends import DirectionEnd, Ends, NormEnd, join
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.frames import Frame, divides, source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs, integer_attr
from graphfreeze.prover.handles import READS, Context
from graphfreeze.prover.operations import FOLLOWED, IFS, KEEPING, NORMS, SHAPE_ONLY
from graphfreeze.prover.origin import SOME_ROWS, Origin, through
from graphfreeze.prover.session_graph import takes_value
from graphfreeze.prover.writes import write_of

__all__ = ["Marked", "Origins"]

Key = tuple[Frame, Tensor]
Part = tuple[Key, Callable[[Origin], Origin | None]]
Marked = Mapping[tuple[Context, Tensor], Iterable[Origin]]
"""Tensors that count as variables, by body, and what they count as."""


class Origins:
    """The origins of the values in the bodies of a model.

    Args:
        bodies: The bodies.
        captured: By function, the tensors of it that custom gradients capture.
        heights: The variables to follow, with how many rows each has; None where it has none.
        marked: Further tensors to follow.
        inputs: The tensors that directions begin with: from there on, values are not followed.
    """

    def __init__(
        self,
        bodies: Bodies,
        captured: Mapping[str, Iterable[str]],
        heights: Mapping[int, int | None],
        marked: Marked,
        inputs: Container[DirectionEnd] = frozenset(),
    ) -> None:
        self._bodies = bodies
        self._captured = captured
        self._heights = heights
        self._marked = {place: frozenset(origins) for place, origins in marked.items()}
        self._inputs = inputs
        self._known: dict[Key, frozenset[Origin]] = {}
        self._seeds = self._find_seeds()
        self._holding, self._calling = self._find_holding()

    def ends(self) -> dict[int, Ends]:
        """Where the values of each variable end, of those that end anywhere."""
        found: dict[int, Ends] = {}
        # A body may be entered with a value from several calls; what it does with its own is found once.
        firsts = [self._bodies.frame(context) for context in self._holding]
        for first in firsts:
            if self._bodies.entered_otherwise(first.context):
                for text in first.view.returns.values():
                    found |= {origin.variable: None for origin in self._of(first, text)}
        work, seen = list(firsts), set(firsts)
        while work:
            frame = work.pop()
            for text in self._captured.get(frame.view.name, ()):
                found |= {origin.variable: None for origin in self._of(frame, text)}
            for node, position in self._taking(frame):
                for origin in self._taken(frame, node, position):
                    end = self._end(frame, node, position, origin)
                    found[origin.variable] = join(found.get(origin.variable, frozenset()), end)
                    if node.op in FOLLOWED:
                        fresh = [branch for branch in frame.branches(node) if branch not in seen]
                        seen.update(fresh)
                        work += fresh
        return found

    def _find_seeds(self) -> dict[Context, list[str]]:
        """By body, the nodes and arguments that yield values to follow by themselves."""
        found: dict[Context, list[str]] = {}
        for context, tensor in self._marked:
            found.setdefault(context, []).append(tensor.node)
        for context in self._bodies.contexts.values() if self._heights else ():
            if context.sources and has_values(context):
                reads = [node for node in context.view.nodes.values() if node.op in READS]
                names = [node.name for node in reads if context.variable_of(node.input[0]) in self._heights]
                names += [name for name, _ in context.references]
                if names:
                    found.setdefault(context, []).extend(names)
        return found

    def _find_holding(self) -> tuple[dict[Context, None], dict[Context, set[str]]]:
        """The bodies in which there are such values, by themselves or returned to them; and the calls that return."""
        holding = dict.fromkeys(self._seeds)
        calling: dict[Context, set[str]] = {}
        work = list(holding)
        while work:
            for caller, node in self._bodies.callers(work.pop()):
                calling.setdefault(caller, set()).add(node.name)
                if caller not in holding:
                    holding[caller] = None
                    work.append(caller)
        return holding, calling

    def _taking(self, frame: Frame) -> Iterator[tuple[node_def_pb2.NodeDef, int]]:
        """The inputs of nodes that may have origins: all behind seeds, calls and arguments."""
        context, view = frame.context, frame.view
        names = [*self._seeds.get(context, ()), *sorted(self._calling.get(context, ()))]
        names += view.arguments if frame.caller is not None else []
        seen = set(names)
        while names:
            for node, position in view.takers.get(names.pop(), ()):
                if not context.counts(node.name):
                    continue
                yield node, position
                if node.name not in seen and node.op in KEEPING | FOLLOWED:
                    seen.add(node.name)
                    names.append(node.name)

    def _end(self, frame: Frame, node: node_def_pb2.NodeDef, position: int, origin: Origin) -> Ends:
        """Where a value ends in a node that takes it; nowhere, if the node hands it on."""
        if node.op in FOLLOWED:
            division = divides(frame.view, node)
            is_condition = node.op in IFS and position == 0
            allowed = (division and origin.is_test) if is_condition else (division or not origin.is_test)
            return frozenset() if allowed and frame.branches(node) else None
        direction = self._direction(frame, node, position)
        if direction is not None:
            return frozenset({direction}) if origin.rows is None and not origin.is_test else None
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
        """The origin that a node's result has by one of an operand, where a direction does not begin with that."""
        return None if self._direction(frame, node, position) is not None else through(frame, node, position, origin)

    def _direction(self, frame: Frame, node: node_def_pb2.NodeDef, position: int) -> DirectionEnd | None:
        """The direction that a node takes part in by what it takes; to write that is no part of it."""
        tensor = Tensor.parse(data_inputs(node)[position])
        end = DirectionEnd(frame.context, *tensor.key)
        write = write_of(node)
        return end if end in self._inputs and (write is None or position != write.value) else None

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
            found |= self._marked.get((key[0].context, key[1]), frozenset())
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
        if node.op in FOLLOWED:
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
