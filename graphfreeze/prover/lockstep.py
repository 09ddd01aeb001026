"""Walk both models in parallel from every root, and prove each pair of bodies that meets on the way once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.prover.envelope import captured_tensors, signature_outputs
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView
from graphfreeze.prover.handles import Binding, Contexts
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.pair import Consumer, Pair, PairEvidence
from graphfreeze.prover.roots import Roots
from graphfreeze.prover.scope import Scope
from graphfreeze.prover.slots import find_slots
from graphfreeze.prover.targets import Target

__all__ = ["Lockstep", "library_of"]

Obligation = tuple[str, str, Binding]


def library_of(meta: meta_graph_pb2.MetaGraphDef) -> dict[str, GraphView]:
    """The functions of a model by name.

    Raises:
        VerificationError: Two have one name.
    """
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
        scope: Where they are frozen; None means everywhere. Elsewhere, bodies and calls have to stay as they are.
        clones: The functions that stand for concrete functions in the rewritten model, where these are others.
    """

    def __init__(
        self,
        original: meta_graph_pb2.MetaGraphDef,
        rewritten: meta_graph_pb2.MetaGraphDef,
        targets: dict[int, Target],
        scope: Scope | None = None,
        clones: Mapping[str, str] | None = None,
    ) -> None:
        self._scope = scope
        self._clones = clones or {}
        self._before = original
        self._after = rewritten
        self._captured = captured_tensors(original, rewritten)
        self._functions = library_of(original)
        named = {name: [consumer.original for consumer in found] for name, found in self._captured.items()}
        self._main = GraphView.of_main_graph(original.graph_def)
        self.slots, self._zeroed = find_slots(original, self._main, self._functions, targets, named, scope)
        self._targets = targets | self.slots
        self._rewritten = library_of(rewritten)
        self._contexts = Contexts(self._functions)
        self._roots = Roots(original, self._targets, self._contexts, scope)
        self._proven: dict[Obligation, PairEvidence] = {}
        self._queue: deque[Obligation] = deque()

    def prove(self) -> dict[Obligation, PairEvidence]:
        """Prove every pair of bodies.

        Returns:
            What was found, by original function, rewritten function and binding.

        Raises:
            VerificationError: Some pair cannot be proven, or a function is missing or superfluous.
        """
        for name in self._roots.functions():
            self._oblige_root(name)
        self._prove_main_graph()
        self._oblige_gradients()
        self._prove_queue()
        self._prove_unreached()
        self._prove_gradients()
        return self._proven

    def _oblige_root(self, name: str) -> None:
        binding = self._roots.binding(name)
        for variable in self._contexts.returned(name, binding):
            if variable is not None:
                refuse(
                    "expected handles to stay inside of the model, found a function that returns one",
                    variable=self._targets[variable].name,
                    function=name,
                )
        self._oblige(name, self._clones.get(name, name), binding)

    def _oblige_gradients(self) -> None:
        library = self._before.graph_def.library
        if library.gradient and self._targets and self._before.object_graph_def.nodes:
            refuse(
                "expected no gradient functions by TensorFlow 1's rules: they are looked up by the name of a function, "
                "which clones do not share",
                function=library.gradient[0].function_name,
            )
        for name in sorted({gradient.gradient_func for gradient in library.registered_gradients}):
            # One that no concrete function wraps captures nothing.
            if name in self._functions and name not in self._before.object_graph_def.concrete_functions:
                self._oblige(name, name, ())

    def _prove_gradients(self) -> None:
        """No function with a gradient function of its own takes targeted variables: it would go by another name."""
        bound = {original for original, _, binding in self._proven if binding}
        for gradient in self._before.graph_def.library.gradient:
            for name in bound.intersection([gradient.function_name, gradient.gradient_func]):
                refuse("expected no targeted variable in a function with a gradient function of its own", function=name)

    def _oblige(self, original: str, rewritten: str, binding: Binding) -> None:
        if rewritten not in self._rewritten:
            refuse("expected the function in the rewritten model, found none of that name", function=rewritten)
        if self._scope is not None and not binding and rewritten != original:
            refuse(f"expected a call of {original!r}, which is out of scope, found another", function=rewritten)
        if (original, rewritten, binding) not in self._proven:
            self._proven[(original, rewritten, binding)] = PairEvidence()
            self._queue.append((original, rewritten, binding))

    def _prove_queue(self) -> None:
        while self._queue:
            original, rewritten, binding = obligation = self._queue.popleft()
            self._proven[obligation] = Pair(
                self._contexts.of(original, binding),
                self._rewritten[rewritten],
                self._rewritten,
                self._targets,
                self._oblige,
                self._zeroed.get((original, binding)),
                self._consumers(*obligation),
            ).prove()

    def _prove_main_graph(self) -> None:
        view = self._main
        self._proven[(view.name, view.name, ())] = Pair(
            self._roots.main_context(view),
            GraphView.of_main_graph(self._after.graph_def),
            self._rewritten,
            self._targets,
            self._oblige,
            self._zeroed.get((view.name, ())),
            signature_outputs(self._before, self._after, self._roots.live_signatures),
        ).prove()

    def _consumers(self, original: str, rewritten: str, binding: Binding) -> list[Consumer]:
        """What custom gradients capture from a function. They name its tensors, so that it has to have one body only.

        Raises:
            VerificationError: The function runs in different contexts, or a handle is captured past the object graph.
        """
        captured = self._captured.get(original, [])
        contexts = {(r, b) for o, r, b in self._proven if o == original}
        if captured and contexts != {(original, binding)}:
            refuse(
                "expected one body of a function from which custom gradients capture tensors, found a clone",
                function=rewritten,
            )
        if original not in self._before.object_graph_def.concrete_functions:
            context = self._contexts.of(original, binding)
            for consumer in captured:
                variable = context.variable_of(consumer.original)
                if variable is not None:
                    refuse(
                        f"expected {consumer.label} to be a value, found a handle",
                        variable=self._targets[variable].name,
                        function=rewritten,
                    )
        return captured

    def _prove_unreached(self) -> None:
        """Functions that no root reaches have to be there, unchanged; and no function may be added without a use."""
        reached = {rewritten for _, rewritten, _ in self._proven}
        for name, view in self._rewritten.items():
            if name in reached:
                continue
            for consumer in self._captured.get(name, ()):
                if consumer.original != consumer.rewritten:
                    refuse(f"expected {consumer.label} to be {consumer.original!r}, found another", function=name)
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
