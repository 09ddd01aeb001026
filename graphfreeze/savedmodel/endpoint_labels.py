"""Which endpoints reach a node: a part of every report."""

from __future__ import annotations

from graphfreeze.savedmodel.contexts import Analysis
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH, signature_nodes
from graphfreeze.savedmodel.model import SavedModel

__all__ = ["EndpointLabels"]


class EndpointLabels:
    """The labels of endpoints (`signature serving_default`, `function serve`), by context and node.

    Args:
        model: The model.
        analysis: Where its functions run.
    """

    def __init__(self, model: SavedModel, analysis: Analysis) -> None:
        self._of_context = analysis.endpoints_of(model.endpoints)
        self._of_main: dict[str, frozenset[str]] = {}
        if model.has_objects:
            return
        body = model.main_body
        for endpoint in model.endpoints:
            nodes = self._of_main[endpoint.label] = frozenset(signature_nodes(model.meta_graph, {endpoint.name}))
            calls = analysis.contexts[Context(MAIN_GRAPH)].calls
            pending = [call.callee for call in calls if body.nodes[call.node].name in nodes]
            seen: dict[Context, None] = {}
            while pending:
                context = pending.pop()
                if context not in seen:
                    seen[context] = None
                    pending += [call.callee for call in analysis.contexts[context].calls]
            for context in seen:
                self._of_context[context] = (*self._of_context.get(context, ()), endpoint.label)

    def of(self, context: Context, node: str) -> tuple[str, ...]:
        """The labels of the endpoints that reach a node of a context; none for what only saves or trains."""
        if context.function == MAIN_GRAPH:
            return tuple(label for label, nodes in self._of_main.items() if node in nodes)
        return self._of_context.get(context, ())
