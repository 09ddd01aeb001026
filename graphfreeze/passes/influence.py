"""What depends on a node, in whatever way: updates of variables, and what a body returns."""

from __future__ import annotations

from collections.abc import Collection

from graphfreeze.passes.value_ends import ValueEnds, handles_of
from graphfreeze.passes.values_behind import ELSEWHERE
from graphfreeze.savedmodel.call_sites import CONDITIONALS
from graphfreeze.savedmodel.handle_flow import READS, Context
from graphfreeze.savedmodel.updates import update_of

__all__ = ["Influence"]


class Influence:
    """What depends on the nodes of a model.

    Args:
        ends: Where values go.
        targets: The object nodes of the targeted variables.
    """

    def __init__(self, ends: ValueEnds, targets: Collection[int]) -> None:
        self._ends = ends
        self._targets = targets
        self._updates: dict[tuple[Context, str], frozenset[int]] = {}
        self._given_out: dict[Context, frozenset[str]] = {}

    def is_given_out(self, context: Context, node: int) -> bool:
        """Whether a body may return what is computed from a node. Main graphs may, whatever their signatures are."""
        body = self._ends.model.body(context.function)
        if not body.in_function:
            return True
        if context not in self._given_out:
            pending, found = [tensor.split(":", 1)[0] for tensor in body.returned], set[str]()
            while pending:
                name = pending.pop()
                if name in found:
                    continue
                found.add(name)
                position = body.positions.get(name)
                inputs = [] if position is None else body.nodes[position].input
                pending += [reference.split(":", 1)[0] for reference in inputs if not reference.startswith("^")]
            self._given_out[context] = frozenset(found)
        return body.nodes[node].name in self._given_out[context]

    def updates_from(self, context: Context, node: int) -> frozenset[int]:
        """The variables that are updated with what is computed from a node, also in other functions.

        What is stored in variables on the way that are not targeted, as Adafactor has them, is followed to their reads.
        """
        body, values = self._ends.model.body(context.function), self._ends.of(context)
        # The norms of many gradients come together soon: from there on, they are followed once.
        name, passed = body.nodes[node].name, set[str]()
        while name not in passed and len(takers := values.takers(name)) == 1 and not values.is_given_out(name):
            taker = body.nodes[takers[0].node]
            if update_of(taker) is not None or self._ends.callers.called_by(context, takers[0].node):
                break
            passed.add(name)
            name = taker.name
        if (context, name) not in self._updates:
            self._updates[context, name] = self._find(context, name)
        return self._updates[context, name]

    def _find(self, context: Context, start: str) -> frozenset[int]:
        model, callers = self._ends.model, self._ends.callers
        pending, seen, found = {context: [start]}, dict[Context, set[str]](), set[int]()
        while pending:
            place, tensors = pending.popitem()
            body, values = model.body(place.function), self._ends.of(place)
            flow, reached = self._ends.analysis.contexts[place], seen.setdefault(place, set())
            while tensors:
                tensor = tensors.pop()
                if tensor in reached:
                    continue
                reached.add(tensor)
                for position, returned in enumerate(body.returned):
                    for caller in callers.of(place) if tensor in (returned, returned.split(":", 1)[0]) else ():
                        outer = model.body(caller.context.function)
                        pending.setdefault(caller.context, []).append(outer.output(caller.node, "output", position))
                for j, k in values.takers(tensor):
                    node, update = body.nodes[j], update_of(body.nodes[j])
                    callees, first = callers.called_by(place, j), int(node.op in CONDITIONALS)
                    if update is None and (not callees or k < first):
                        tensors.append(node.name)
                    for callee in callees if k >= first else ():
                        arguments = model.body(callee.function).arguments
                        pending.setdefault(callee, []).extend(arguments[k - first : k - first + 1])
                    if update is None:
                        continue
                    variables = handles_of(body, flow, j, update)
                    found.update(variables)
                    for position, variable in zip(update.handles, variables, strict=True):
                        if variable not in self._targets:
                            takers = body.consumers[body.tensor(node.input[position])]
                            readers = [body.nodes[taker.node] for taker in takers]
                            tensors += [reader.name for reader in readers if reader.op in READS]
        return frozenset(found - {ELSEWHERE})
