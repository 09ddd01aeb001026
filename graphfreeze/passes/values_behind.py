"""From which variables' values a tensor is computed: found backwards, through branches and calls."""

from __future__ import annotations

from typing import NamedTuple

from tensorflow.core.framework import node_def_pb2

from graphfreeze.passes.callers import Caller, Callers
from graphfreeze.passes.operations import ELEMENTWISE, FOLLOWED, REARRANGING
from graphfreeze.passes.same_tensor import divides
from graphfreeze.passes.static_shapes import static_shape
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.graph_variables import REFERENCES
from graphfreeze.savedmodel.handle_flow import READS, Context
from graphfreeze.savedmodel.model import SavedModel

__all__ = ["ELSEWHERE", "ValuesBehind"]

ELSEWHERE = -1
"""Stands for everything that is not the value of a variable, or is not followed."""
_RESULT = -2
"""Stands for the results of operations that do not keep elements in their places."""
_DEPTH = 100
"""How many calls are followed into one another."""


class _Place(NamedTuple):
    """A tensor in a body, with the calls by which the search entered that, and whether scalars count."""

    context: Context
    tensor: str
    scalars: bool
    calls: tuple[tuple[Context, int], ...] = ()


class ValuesBehind:
    """What is behind the tensors of a model.

    Args:
        model: The model.
        analysis: Where the handles of variables go.
        callers: The callers of its bodies.
    """

    def __init__(self, model: SavedModel, analysis: Analysis, callers: Callers) -> None:
        self._model = model
        self._analysis = analysis
        self._callers = callers
        self._known: dict[bool, dict[_Place, frozenset[int]]] = {False: {}, True: {}}

    def of(self, context: Context, tensor: str, *, rearranged: bool = False) -> frozenset[int]:
        """The variables from whose values a tensor is computed, element by element.

        A sum of gradients counts as a gradient, though a regulariser adds a multiple of a variable to it. Scalars count
        for scalars alone: for anything else, they are factors.

        Args:
            context: The body.
            tensor: The tensor.
            rearranged: Whether elements may also come to other places on the way.

        Returns:
            The object nodes of the variables, and `ELSEWHERE` for values that are not followed.
        """
        is_scalar = static_shape(self._model.body(context.function), tensor) == ()
        return self._leaves(_Place(context, tensor, is_scalar), rearranged) - {_RESULT}

    def _leaves(self, start: _Place, rearranged: bool) -> frozenset[int]:
        """Those variables, and whether anything is the result of other operations: these last."""
        known = self._known[rearranged]
        pending, opened = [start], set[_Place]()
        while pending:
            place = pending[-1]
            if place in known:
                pending.pop()
                continue
            own, parts = self._parts(place, rearranged)
            missing = [part for part in parts if part not in known]
            if missing and place not in opened:
                opened.add(place)
                pending += missing
                continue
            pending.pop()
            # What is still missing depends on itself.
            found = [known.get(part, frozenset({ELSEWHERE})) for part in parts]
            node = self._node(place)
            if node is not None and node.op == "AddN" and frozenset({_RESULT}) in found:
                known[place] = frozenset({_RESULT})
            else:
                known[place] = own.union(*found)
        return known[start]

    def _node(self, place: _Place) -> node_def_pb2.NodeDef | None:
        body = self._model.body(place.context.function)
        position = body.positions.get(place.tensor.split(":", 1)[0])
        return None if position is None else body.nodes[position]

    def _parts(self, place: _Place, rearranged: bool) -> tuple[frozenset[int], list[_Place]]:
        """What a tensor is by itself, and the tensors that it is made of."""
        body = self._model.body(place.context.function)
        node = self._node(place)
        if node is None:
            return self._passed(place, body)
        if node.op == "Const" or (not place.scalars and static_shape(body, place.tensor) == ()):
            return frozenset(), []
        if node.op in REFERENCES:
            return frozenset({ELSEWHERE}), []
        if node.op in READS:
            handles = self._analysis.contexts[place.context].handles
            return frozenset({handles.get(body.tensor(node.input[0]), ELSEWHERE)}), []
        if node.op in FOLLOWED:
            return self._returned(place, body, node)
        taken = [reference for reference in node.input if not reference.startswith("^")]
        if rearranged and node.op in REARRANGING:
            taken = taken[:1]
        elif node.op not in ELEMENTWISE and node.op != "IdentityN":
            return frozenset({_RESULT}), []
        return frozenset(), [place._replace(tensor=body.tensor(reference)) for reference in taken]

    def _passed(self, place: _Place, body: Body) -> tuple[frozenset[int], list[_Place]]:
        """What is passed for an argument: by the call that the search came from, or by all of them."""
        if place.tensor not in body.arguments:
            return frozenset({ELSEWHERE}), []
        position = body.arguments.index(place.tensor)
        if place.calls:
            *outer, (context, node) = place.calls
            calls = [c for c in self._callers.of(place.context) if (c.context, c.node) == (context, node)]
            return frozenset(), [self._operand(calls[0], position, place.scalars, tuple(outer))]
        own = frozenset({ELSEWHERE}) if self._callers.is_run_otherwise(place.context) else frozenset[int]()
        return own, [self._operand(call, position, place.scalars) for call in self._callers.of(place.context)]

    def _operand(
        self, call: Caller, position: int, scalars: bool, calls: tuple[tuple[Context, int], ...] = ()
    ) -> _Place:
        body = self._model.body(call.context.function)
        return _Place(call.context, body.tensor(body.nodes[call.node].input[call.first + position]), scalars, calls)

    def _returned(self, place: _Place, body: Body, node: node_def_pb2.NodeDef) -> tuple[frozenset[int], list[_Place]]:
        """What the functions return that a node calls. Of a division of rows, one branch does not count."""
        position = int(place.tensor.rpartition(":")[2])
        skipped = {"then_branch"} if divides(body, node) else set()
        i = body.positions[node.name]
        calls = [c for c in self._analysis.contexts[place.context].calls if c.node == i]
        parts = []
        for call in calls:
            returned = self._model.body(call.callee.function).returned
            if position >= len(returned) or len(place.calls) >= _DEPTH:
                return frozenset({ELSEWHERE}), []
            if call.slot.attribute not in skipped:
                inner = (*place.calls, (place.context, i))
                parts.append(_Place(call.callee, returned[position], place.scalars, inner))
        return (frozenset() if parts else frozenset({ELSEWHERE})), parts
