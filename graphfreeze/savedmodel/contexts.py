"""Every context in which the functions of a SavedModel run, and what happens in each to the handles of variables."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphfreeze.errors import ModelReadError, UnsupportedError
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import LOOPS
from graphfreeze.savedmodel.endpoints import Endpoint
from graphfreeze.savedmodel.graph_flow import trace_graph
from graphfreeze.savedmodel.handle_flow import Call, Context, Flow, Use, UseKind, trace_handles
from graphfreeze.savedmodel.main_graph import (
    MAIN_GRAPH,
    saver_nodes,
    signature_nodes,
    unclear_handles,
    variable_handles,
)
from graphfreeze.savedmodel.object_graph import resource_functions, saver_functions
from graphfreeze.savedmodel.scope import Scope

if TYPE_CHECKING:
    from graphfreeze.savedmodel.model import SavedModel

__all__ = ["Analysis", "analyse"]

# The work that following handles may take, in nodes; a context costs some in itself.
_MAX_TRACED = 250_000
_MAX_TRACED_PER_NODE = 20
_CONTEXT_COST = 30


@dataclass
class Analysis:
    """Where handles go, from the roots on.

    Attributes:
        contexts: Every context that a root reaches, in the order of discovery, with its flow.
        roots: Concrete function -> the context in which the object graph binds it. Functions that save, restore or
            initialise, or are out of scope, are roots without handles: there, variables are taken as they are stored.
            Of a model without objects, the only root is its main graph, which is a context like a function.
        main_graph: The flow in the main graph, of the handles that signatures take; empty where that is a root.
    """

    contexts: dict[Context, Flow]
    roots: dict[str, Context]
    main_graph: Flow

    def reached_from(self, functions: Iterable[str]) -> dict[Context, None]:
        """The contexts that concrete functions reach, themselves included, as an ordered set."""
        reached: dict[Context, None] = {}
        pending = [self.roots[name] for name in functions if name in self.roots]
        while pending:
            context = pending.pop()
            if context not in reached:
                reached[context] = None
                pending.extend(call.callee for call in self.contexts[context].calls)
        return reached

    def endpoints_of(self, endpoints: Iterable[Endpoint]) -> dict[Context, tuple[str, ...]]:
        """The labels of the endpoints that reach each context."""
        labels: defaultdict[Context, list[str]] = defaultdict(list)
        for endpoint in endpoints:
            for context in self.reached_from(endpoint.functions):
                labels[context].append(endpoint.label)
        return {context: tuple(names) for context, names in labels.items()}


def analyse(model: SavedModel, variables: frozenset[int], scope: Scope | None = None) -> Analysis:
    """Follow the handles of variables through the whole model.

    Args:
        model: The model.
        variables: The object nodes of the variables to follow.
        scope: Where to follow them: elsewhere, functions run without. By default everywhere.

    Returns:
        The analysis. Uses that are not understood are recorded in it, not raised.
    """
    return _Analyser(model, variables, scope).run()


class _Analyser:
    def __init__(self, model: SavedModel, variables: frozenset[int], scope: Scope | None) -> None:
        self.model = model
        self.variables = variables
        self.scope = scope
        self.traced = 0
        self.contexts: dict[Context, Flow] = {}
        self.callers: defaultdict[Context, dict[Context, None]] = defaultdict(dict)

    def run(self) -> Analysis:
        roots = self._roots()
        self._visit(roots.values())
        if not self.model.has_objects:
            self._check_flows()
            return Analysis(self.contexts, roots, Flow())
        handles = {t: v for t, v in self._main_handles().items() if v in self.variables}
        live = signature_nodes(self.model.meta_graph, None if self.scope is None else self.scope.signatures)
        body = self.model.main_body
        main_graph = trace_handles(
            body, handles, self.model.functions, self._returns, lambda i: body.nodes[i].name in live
        )
        main_graph.uses.extend(
            Use(UseKind.OTHER, i, variable, reason)
            for i, variable, reason in unclear_handles(self.model.meta_graph, self.model.functions, body, live)
            if variable in self.variables
        )
        main_graph.uses.sort(key=lambda use: use.node)
        self._visit(call.callee for call in main_graph.calls)
        self._check_flows()
        _check_returned_handles(main_graph, self.contexts, body)
        return Analysis(self.contexts, roots, main_graph)

    def _check_flows(self) -> None:
        for context, flow in self.contexts.items():
            self._check_reads(flow, self.model.body(context.function))
            _check_returned_handles(flow, self.contexts, self.model.body(context.function))

    def _check_reads(self, flow: Flow, body: Body) -> None:
        """Record reads that take a variable for one of another dtype."""
        for i, use in enumerate(flow.uses):
            declared = self._declared_dtype(use.variable)
            if use.kind is UseKind.READ and declared is not None:
                attributes = body.nodes[use.node].attr
                # The read of a reference has its dtype, and the attribute has another name.
                dtype = attributes["dtype"].type if "dtype" in attributes else None
                if dtype != declared and body.nodes[use.node].op != "Identity":
                    flow.uses[i] = Use(UseKind.OTHER, use.node, use.variable, "it reads it as another dtype")

    def _declared_dtype(self, variable: int) -> int | None:
        """The dtype of a variable; None where its object is something else."""
        if not self.model.has_objects:
            return int(self.model.main_body.nodes[variable].attr["dtype"].type)
        node = self.model.object_graph.nodes[variable]
        return int(node.variable.dtype) if node.WhichOneof("kind") == "variable" else None

    def _roots(self) -> dict[str, Context]:
        model = self.model
        if not model.has_objects:
            return {MAIN_GRAPH: Context(MAIN_GRAPH)}
        concrete = model.object_graph.concrete_functions
        raw = saver_functions(model.object_graph) | resource_functions(model.object_graph)
        for node in saver_nodes(model.meta_graph):
            if "f" in node.attr:
                raw.add(node.attr["f"].func.name)
        if self.scope is not None:
            raw |= set(concrete) - self.scope.functions
        roots = {}
        for name in sorted(set(concrete) & set(model.functions)):
            captures = [] if name in raw else concrete[name].bound_inputs
            first = len(model.functions[name].signature.input_arg) - len(captures)
            bound = ((i, node) for i, node in enumerate(captures, first) if node in self.variables)
            roots[name] = Context(name, tuple(bound))
        return roots

    def _main_handles(self) -> dict[str, int]:
        return variable_handles(self.model.meta_graph, self.model.functions, self.model.main_body)

    def _returns(self, context: Context) -> Mapping[int, int]:
        flow = self.contexts.get(context)
        return flow.returns if flow else {}

    def _count(self, nodes: int) -> None:
        """Account for one more traced body. Functions that permute their arguments have contexts without number."""
        self.traced += nodes + _CONTEXT_COST
        if self.traced > _MAX_TRACED + _MAX_TRACED_PER_NODE * self.model.nodes:
            raise UnsupportedError(
                f"The functions of {self.model.directory} run with too many different variables: {len(self.contexts)} "
                "combinations were found, and there are more. Select fewer variables, or export the model with "
                "functions that take no variables as arguments."
            )

    def _visit(self, start: Iterable[Context]) -> None:
        """Trace contexts and all that they call, until no context learns more of what its callees return."""
        queue = deque(context for context in start if context not in self.contexts)
        while queue:
            context = queue.popleft()
            before = self.contexts.get(context)
            body = self.model.body(context.function)
            self._count(len(body.nodes))
            if context.binding and context.binding[-1][0] >= len(body.arguments):
                raise ModelReadError(
                    f"{self.model.directory / 'saved_model.pb'} is corrupt: function {context.function!r} is called "
                    "with more arguments than it has. Export the model again."
                )
            flow = self._trace(context, body)
            self.contexts[context] = flow
            for call in flow.calls:
                self.callers[call.callee][context] = None
                if call.callee not in self.contexts:
                    self.contexts[call.callee] = Flow()
                    queue.append(call.callee)
            if flow.returns != (before.returns if before else {}):
                queue.extend(self.callers[context])

    def _trace(self, context: Context, body: Body) -> Flow:
        if context.function != MAIN_GRAPH:
            handles = {body.arguments[position]: variable for position, variable in context.binding}
            return trace_handles(body, handles, self.model.functions, self._returns)
        followed = {n: v for n, v in self.model.graph_variables.items() if n in self.variables}
        references, handles = (
            {body.output(i, "", 0): n for n, v in followed.items() for i in v.nodes if v.is_reference == kind}
            for kind in (True, False)
        )
        functions, initialising = self.model.functions, self.model.initialising
        return trace_graph(body, handles, references, functions, self._returns, initialising)


def _check_returned_handles(flow: Flow, contexts: Mapping[Context, Flow], body: Body) -> None:
    """Record calls whose returned handles cannot be followed: the branches differ, or a loop changes its handles."""
    calls: defaultdict[int, list[Call]] = defaultdict(list)
    for call in flow.calls:
        calls[call.node].append(call)
    for i, at_node in calls.items():
        reason = _mismatch(body, i, at_node, contexts)
        if reason:
            involved = {
                v
                for call in at_node
                for v in (*dict(call.callee.binding).values(), *contexts[call.callee].returns.values())
            }
            flow.uses.extend(Use(UseKind.OTHER, i, variable, reason) for variable in sorted(involved))


def _mismatch(body: Body, i: int, calls: list[Call], contexts: Mapping[Context, Flow]) -> str:
    returned = [(call, contexts[call.callee].returns) for call in calls]
    if body.nodes[i].op in LOOPS:
        changed = any(
            returns != dict(call.callee.binding) for call, returns in returned if call.slot.attribute == "body"
        )
        return "the loop does not hand the same handle on" if changed else ""
    if any(returns != returned[0][1] for _, returns in returned):
        return "its branches return different handles"
    if any(returns and not call.slot.attribute for call, returns in returned):
        return "it returns a handle from a function that it calls by name"
    return ""
