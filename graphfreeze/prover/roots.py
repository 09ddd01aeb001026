"""Where a SavedModel can be entered, and which targeted variables enter with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.handles import CALLS, SAME, Binding, Context, Contexts
from graphfreeze.prover.scope import Scope, functions_of
from graphfreeze.prover.session_graph import SessionGraph
from graphfreeze.prover.targets import Target

__all__ = ["Roots"]

INIT_SIGNATURE = "__saved_model_init_op"
RESOURCE_METHODS = frozenset({"_create_resource", "_initialize", "_destroy_resource"})


class Roots:
    """The entries of the original model.

    Args:
        meta: The original's meta graph.
        targets: The targeted variables by object node.
        contexts: The contexts of the original's functions.
        scope: Where the variables count; None means everywhere.
    """

    def __init__(
        self,
        meta: meta_graph_pb2.MetaGraphDef,
        targets: Mapping[int, Target],
        contexts: Contexts,
        scope: Scope | None = None,
    ) -> None:
        self._scope = scope
        self._meta = meta
        self._objects = meta.object_graph_def
        self._targets = targets
        self._contexts = contexts
        self._bindings: dict[str, Binding | None] = {}
        self._bookkeeping = self._bookkeeping_functions()

    # The concrete functions.

    def functions(self) -> list[str]:
        """All concrete functions that the library holds, sorted."""
        return sorted(name for name in self._objects.concrete_functions if name in self._contexts.library)

    def binding(self, function: str) -> Binding:
        """The targeted variables among what the concrete function captures; none for save, restore and initialisers."""
        if function not in self._bindings:
            self._bindings[function] = None
            self._bindings[function] = self._bind(function)
        known = self._bindings[function]
        if known is None:
            refuse("expected captured tensors without cycles, found one", function=function)
        return known

    def _bind(self, function: str) -> Binding:
        if function in self._bookkeeping or (self._scope is not None and function not in self._scope.functions):
            return ()
        captured = self._objects.concrete_functions[function].bound_inputs
        first = len(self._contexts.library[function].arguments) - len(captured)
        if first < 0:
            refuse(f"expected at least {len(captured)} arguments, found fewer than it captures", function=function)
        carried = ((first + position, self._variable(node_id)) for position, node_id in enumerate(captured))
        return tuple((position, variable) for position, variable in carried if variable is not None)

    def _variable(self, node_id: int) -> int | None:
        """The targeted variable whose handle an object node stands for: itself, or what it captures."""
        if node_id in self._targets:
            return node_id
        node = self._objects.nodes[node_id]
        if node.WhichOneof("kind") != "captured_tensor":
            return None
        function = node.captured_tensor.concrete_function
        if function not in self._contexts.library or function not in self._objects.concrete_functions:
            return None
        return self._contexts.of(function, self.binding(function)).variable_of(node.captured_tensor.name)

    def _bookkeeping_functions(self) -> frozenset[str]:
        """Functions that save, restore, create or initialise: found by their role, never by their name."""
        found: set[str] = set()
        for node in self._objects.nodes:
            for saveable in node.saveable_objects.values():
                found.update(functions_of(self._objects.nodes[saveable.save_function]))
                found.update(functions_of(self._objects.nodes[saveable.restore_function]))
            if node.WhichOneof("kind") == "resource":
                for child in node.children:
                    if child.local_name in RESOURCE_METHODS:
                        found.update(functions_of(self._objects.nodes[child.node_id]))
        saver = self._meta.saver_def
        roles = {saver.save_tensor_name.partition(":")[0], saver.restore_op_name.partition(":")[0]} - {""}
        for main in self._meta.graph_def.node:
            if main.name in roles and "f" in main.attr:
                found.add(main.attr["f"].func.name)
        return frozenset(found)

    # The main graph.

    @property
    def live_signatures(self) -> frozenset[str]:
        """The signatures in which targeted variables are to be masked."""
        every = frozenset(self._meta.signature_def) - {INIT_SIGNATURE}
        return every if self._scope is None else every & self._scope.signatures

    def main_context(self, view: GraphView) -> Context:
        """The main graph, with the handle of each targeted variable, live where a signature needs it.

        Raises:
            VerificationError: A handle cannot be told apart.
        """
        if not self._objects.nodes:
            return self._session_context(view)
        live = self._live_nodes(view, self.live_signatures)
        owners: dict[str, int] = {}
        for node in view.nodes.values():
            if node.name in live and node.op in CALLS:
                self._align(view, node.attr["f"].func.name, data_inputs(node), owners)
        for node in view.nodes.values():
            if self._targets and node.op == "VarHandleOp" and node.name in live and node.name not in owners:
                refuse(
                    "expected every handle that a signature needs to be captured by its function, found another",
                    function=view.name,
                    node=node.name,
                )
        sources = {(name, 0): node_id for name, node_id in owners.items() if node_id in self._targets}
        context = Context(view, sources, self._contexts, live)
        if self._scope is not None:
            self._check_shared(context)
        return context

    def _session_context(self, view: GraphView) -> Context:
        """The main graph of a model without objects: everything in it counts, but for what saves."""
        graph = SessionGraph(self._meta)
        sources, references = graph.sources(self._targets)
        return Context(view, sources, self._contexts, graph.live, references, graph.initialising, is_session=True)

    def _check_shared(self, context: Context) -> None:
        """Signatures that are not frozen must not share a call with those that are."""
        others = self._live_nodes(context.view, frozenset(self._meta.signature_def) - self.live_signatures)
        for name in sorted(others):
            node = context.view.nodes[name]
            carries = any(context.variable_of(text) is not None for text in data_inputs(node))
            if context.is_call(node) and carries and context.counts(name):
                refuse(
                    "expected calls of the frozen signatures alone, found one that another signature shares",
                    function=context.view.name,
                    node=name,
                )

    def _align(self, view: GraphView, function: str, inputs: list[str], owners: dict[str, int]) -> None:
        """A signature's call passes, at its end, exactly what the concrete function captures."""
        if function not in self._objects.concrete_functions or function in self._bookkeeping:
            return
        captured = self._objects.concrete_functions[function].bound_inputs
        if len(captured) > len(inputs):
            refuse(f"expected at least {len(captured)} inputs at each call, found {len(inputs)}", function=function)
        for node_id, text in zip(captured, inputs[len(inputs) - len(captured) :], strict=True):
            node = view.nodes.get(Tensor.parse(text).node)
            while node is not None and node.op in SAME and node.input:
                node = view.nodes.get(Tensor.parse(node.input[0]).node)
            if node is None or node.op != "VarHandleOp":
                if node_id in self._targets:
                    refuse(
                        "expected the signature to pass the variable's handle, found something else",
                        variable=self._targets[node_id].name,
                        function=view.name,
                        node=text,
                    )
                continue
            owner = owners.setdefault(node.name, node_id)
            if owner != node_id and (owner in self._targets or node_id in self._targets):
                refuse(
                    "expected one handle to stand for one variable, found that signatures capture two through it",
                    variable=self._targets[owner if owner in self._targets else node_id].name,
                    function=view.name,
                    node=node.name,
                )

    def _live_nodes(self, view: GraphView, signatures: Iterable[str]) -> frozenset[str]:
        live: set[str] = set()
        for name in sorted(signatures):
            work = [Tensor.parse(info.name).node for info in self._meta.signature_def[name].outputs.values()]
            while work:
                current = work.pop()
                if current in live or current not in view.nodes:
                    continue
                live.add(current)
                work.extend(Tensor.parse(text.lstrip("^")).node for text in view.nodes[current].input)
        return frozenset(live)
