"""Which updates something of a body changes, in whatever way, in that body and in all that it hands its values to."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.frames import source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import READS, Context
from graphfreeze.prover.operations import FOLLOWED, IFS
from graphfreeze.prover.session_graph import REFERENCE_NODES, takes_value
from graphfreeze.prover.writes import write_of

__all__ = ["Reach"]


class _Place(NamedTuple):
    """A node or an argument of a body, with all that it yields, or of a call one of the results."""

    context: Context
    name: str
    result: int | None = None


class _Handle(NamedTuple):
    context: Context
    text: str


class Reach:
    """The bodies, with what was found in them.

    Args:
        bodies: The model's bodies.
    """

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._updates: dict[_Place, frozenset[_Handle]] = {}
        self._reads: dict[Context, dict[Tensor, list[str]]] = {}

    def gives_out(self, context: Context, name: str) -> bool:
        """Whether the body may return something that is computed with what a node yields; the main graph always may."""
        view = context.view
        if view.definition is None:
            return True
        returned = {Tensor.parse(text).node for text in view.returns.values()}
        work, seen = [name], {name}
        while work:
            made = work.pop()
            if made in returned:
                return True
            fresh = {node.name for node, _ in view.takers.get(made, ())} - seen
            seen |= fresh
            work += fresh
        return False

    def reaches(self, context: Context, name: str, owner: int, slots: Container[int], targets: Container[int]) -> bool:
        """Whether what a node yields reaches an update of a variable or of its slots.

        Where it reaches an update of another variable, what is read from that one is followed, too.

        Args:
            context: The body.
            name: The node.
            owner: The variable.
            slots: Its slots.
            targets: The targeted variables: what is read from these is not followed.
        """
        start = _Place(context, name)
        work, seen = [start], {start}
        while work:
            for handle in self._updated_from(work.pop()):
                variable = handle.context.variable_of(handle.text)
                if variable is not None and (variable == owner or variable in slots):
                    return True
                if variable is None or variable not in targets:
                    fresh = [place for place in self._read_again(handle) if place not in seen]
                    seen.update(fresh)
                    work += fresh
        return False

    def _updated_from(self, place: _Place) -> frozenset[_Handle]:
        """The handles and references of the variables in whose writes something has a part."""
        # Norms of many gradients come together soon: from there on, they are followed once.
        passed: set[_Place] = set()
        handles, places = self._next(place)
        while place not in passed and not handles and len(places) == 1:
            passed.add(place)
            place = places[0]
            handles, places = self._next(place)
        if place not in self._updates:
            found: set[_Handle] = set()
            work, seen = [place], {place}
            while work:
                handles, places = self._next(work.pop())
                found.update(handles)
                fresh = set(places) - seen
                seen |= fresh
                work += fresh
            self._updates[place] = frozenset(found)
        return self._updates[place]

    def _next(self, place: _Place) -> tuple[list[_Handle], list[_Place]]:
        """What takes something: the handles and references that it is written by, and what is computed from it."""
        context, name, result = place
        handles: list[_Handle] = []
        places: dict[_Place, None] = {}
        for node, position in context.view.takers.get(name, ()):
            inputs = data_inputs(node)
            if result is not None and Tensor.parse(inputs[position]).position != result:
                continue
            write = write_of(node)
            operand = position - (1 if node.op in IFS else 0)
            callees = self._bodies.callees(context, node.name) if node.op in FOLLOWED and operand >= 0 else []
            if write is not None:
                handles += [_Handle(context, inputs[handle]) for handle in write.handles]
            elif callees:
                entered = [(callee, list(callee.view.arguments)) for callee in callees]
                places |= {_Place(c, names[operand]): None for c, names in entered if operand < len(names)}
            else:
                places[_Place(context, node.name)] = None
        places |= dict.fromkeys(self._returned(place))
        return handles, list(places)

    def _returned(self, place: _Place) -> Iterator[_Place]:
        """The results of all calls of the body in which something is given back."""
        context, name, result = place
        calls = self._bodies.callers(context)
        for position, output in enumerate(context.view.outputs if calls else ()):
            tensor = Tensor.parse(context.view.returns.get(output, ""))
            if tensor.node == name and result in (None, tensor.position):
                yield from (_Place(caller, node.name, position) for caller, node in calls)

    def _read_again(self, handle: _Handle) -> Iterator[_Place]:
        """The nodes that read a variable by the same handle or reference, in the same body."""
        context = handle.context
        if context not in self._reads:
            reads: dict[Tensor, list[str]] = {}
            for node in context.view.nodes.values():
                for source in _read_by(context, node):
                    reads.setdefault(source, []).append(node.name)
            self._reads[context] = reads
        same = source_of(context.view, handle.text)
        return (_Place(context, name) for name in self._reads[context].get(same, ()))


def _read_by(context: Context, node: node_def_pb2.NodeDef) -> Iterator[Tensor]:
    view = context.view
    inputs = data_inputs(node)
    if node.op in READS:
        yield source_of(view, inputs[0])
        return
    for position, text in enumerate(inputs):
        made = view.nodes.get(Tensor.parse(text).node)
        if made is not None and made.op in REFERENCE_NODES and takes_value(node, position):
            yield Tensor.parse(text)
