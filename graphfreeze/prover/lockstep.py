"""Walk both models in parallel from every root, and prove each pair of bodies that meets on the way once."""

from __future__ import annotations

from collections import deque

from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.prover.envelope import captured_tensors, signature_outputs
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView
from graphfreeze.prover.handles import Binding, Contexts
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.pair import Pair, PairEvidence
from graphfreeze.prover.roots import Roots
from graphfreeze.prover.targets import Target

__all__ = ["Lockstep"]

Obligation = tuple[str, str, Binding]


def _library(meta: meta_graph_pb2.MetaGraphDef) -> dict[str, GraphView]:
    views: dict[str, GraphView] = {}
    for function in meta.graph_def.library.function:
        if function.signature.name in views:
            refuse("expected function names to be unique, found one twice", function=function.signature.name)
        views[function.signature.name] = GraphView.of_function(function)
    return views


class Lockstep:
    """The walk over both models.

    Args:
        original: The original's meta graph.
        rewritten: The rewritten meta graph.
        targets: The targeted variables by object node.
        only_in: The endpoints that the plan is limited to; empty means all.
    """

    def __init__(
        self,
        original: meta_graph_pb2.MetaGraphDef,
        rewritten: meta_graph_pb2.MetaGraphDef,
        targets: dict[int, Target],
        only_in: tuple[str, ...] = (),
    ) -> None:
        self._before = original
        self._after = rewritten
        self._targets = targets
        self._functions = _library(original)
        self._rewritten = _library(rewritten)
        self._contexts = Contexts(self._functions)
        self._roots = Roots(original, targets, self._contexts, only_in)
        self._proven: dict[Obligation, PairEvidence] = {}
        self._queue: deque[Obligation] = deque()
        self._captured = captured_tensors(original, rewritten)

    def prove(self) -> dict[Obligation, PairEvidence]:
        """Prove every pair of bodies.

        Returns:
            What was found, by original function, rewritten function and binding.

        Raises:
            VerificationError: Some pair cannot be proven, or a function is missing or superfluous.
        """
        self._check_captured_tensors()
        for name in self._roots.functions():
            self._oblige(name, name, self._roots.binding(name))
        self._prove_main_graph()
        library = self._before.graph_def.library
        concrete = self._before.object_graph_def.concrete_functions
        # A gradient function that no concrete function wraps captures nothing.
        by_name = {g.gradient_func for g in library.gradient} | {g.gradient_func for g in library.registered_gradients}
        for name in sorted(by_name):
            if name in self._functions and name not in concrete:
                self._oblige(name, name, ())
        self._prove_queue()
        self._prove_unreached()
        return self._proven

    def _oblige(self, original: str, rewritten: str, binding: Binding) -> None:
        if rewritten not in self._rewritten:
            refuse("expected the function in the rewritten model, found none of that name", function=rewritten)
        if (original, rewritten, binding) not in self._proven:
            self._proven[(original, rewritten, binding)] = PairEvidence()
            self._queue.append((original, rewritten, binding))

    def _prove_queue(self) -> None:
        while self._queue:
            original, rewritten, binding = obligation = self._queue.popleft()
            # Captured tensors belong to the body under its own name, in the context of its own captures.
            own = original == rewritten and original in self._captured and binding == self._roots.binding(original)
            self._proven[obligation] = Pair(
                self._contexts.of(original, binding),
                self._rewritten[rewritten],
                self._rewritten,
                self._targets,
                self._oblige,
                self._captured[original] if own else (),
            ).prove()

    def _prove_main_graph(self) -> None:
        view = GraphView.of_main_graph(self._before.graph_def)
        self._proven[(view.name, view.name, ())] = Pair(
            self._roots.main_context(view),
            GraphView.of_main_graph(self._after.graph_def),
            self._rewritten,
            self._targets,
            self._oblige,
            signature_outputs(self._before, self._after, self._roots.live_signatures),
        ).prove()

    def _check_captured_tensors(self) -> None:
        roots = set(self._roots.functions())
        for function, consumers in self._captured.items():
            for consumer in consumers:
                if function not in roots and consumer.original != consumer.rewritten:
                    refuse(
                        f"expected {consumer.label} to be {consumer.original!r}, found {consumer.rewritten!r}",
                        function=function,
                    )

    def _prove_unreached(self) -> None:
        """Functions that no root reaches have to be there, unchanged; and no function may be added without a use."""
        reached = {rewritten for _, rewritten, _ in self._proven}
        for name, view in self._rewritten.items():
            if name in reached:
                continue
            if name not in self._functions:
                refuse(
                    "expected only functions that something calls, found an added one that nothing calls", function=name
                )
            assert view.definition is not None
            different = differing_fields(self._functions[name].definition, view.definition)
            if different:
                refuse(
                    f"expected a function that nothing calls to stay as it is, found another {', '.join(different)}",
                    function=name,
                )
        for name in self._functions:
            if name not in self._rewritten:
                refuse("expected every function of the original, found one missing", function=name)
