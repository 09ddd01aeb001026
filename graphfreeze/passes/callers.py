"""Which nodes call a body: where its arguments come from, and where what it returns goes on to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from graphfreeze.passes.operations import FOLLOWED
from graphfreeze.savedmodel.call_sites import CONDITIONALS
from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.savedmodel.model import SavedModel

__all__ = ["Caller", "Callers"]


class Caller(NamedTuple):
    """A node that calls a body.

    Attributes:
        context: The body that the node is in.
        node: Its position.
        first: The node's input that is the first argument.
    """

    context: Context
    node: int
    first: int


class Callers:
    """The callers of all bodies of a model.

    Args:
        model: The model.
        analysis: Where handles go in it.
    """

    def __init__(self, model: SavedModel, analysis: Analysis) -> None:
        self._calls: defaultdict[Context, list[Caller]] = defaultdict(list)
        self._called: defaultdict[tuple[Context, int], list[Context]] = defaultdict(list)
        self._otherwise = {*analysis.roots.values(), *(call.callee for call in analysis.main_graph.calls)}
        for context, flow in analysis.contexts.items():
            body = model.body(context.function)
            for call in flow.calls:
                node = body.nodes[call.node]
                if node.op in FOLLOWED and call.slot.attribute in ("f", "then_branch", "else_branch"):
                    self._calls[call.callee].append(Caller(context, call.node, int(node.op in CONDITIONALS)))
                    self._called[context, call.node].append(call.callee)
                else:
                    self._otherwise.add(call.callee)

    def of(self, context: Context) -> Sequence[Caller]:
        """The nodes that call a body, as far as values are followed through them."""
        return self._calls.get(context, ())

    def called_by(self, context: Context, node: int) -> Sequence[Context]:
        """The bodies that a node calls, as far as values are followed into them."""
        return self._called.get((context, node), ())

    def is_run_otherwise(self, context: Context) -> bool:
        """Whether a body is also run by endpoints, or called in a way in which values are not followed."""
        return context in self._otherwise
