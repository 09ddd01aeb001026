"""All bodies that a model runs, each in the contexts in which it runs, and who calls them."""

from __future__ import annotations

from collections.abc import Mapping

from tensorflow.core.framework import node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.frames import Entries, Frame
from graphfreeze.prover.graph_view import CallSlot, GraphView, call_slots
from graphfreeze.prover.handles import Binding, Context, Contexts
from graphfreeze.prover.operations import FOLLOWED
from graphfreeze.prover.roots import Roots
from graphfreeze.prover.scope import Scope
from graphfreeze.prover.targets import Target

__all__ = ["Bodies", "has_values"]


class Bodies:
    """The contexts that are reached from the roots, the main graph first, each with how it is entered.

    Args:
        meta: The model's meta graph.
        main: Its main graph.
        library: Its functions.
        followed: The variables whose handles are followed, by object node.
        scope: Where they are; None means everywhere.

    Attributes:
        contexts: The contexts, by function and binding.
        fetched: The tensors of the main graph that signatures give out.

    Raises:
        VerificationError: A handle cannot be told apart from another, or is given to the caller.
    """

    def __init__(
        self,
        meta: meta_graph_pb2.MetaGraphDef,
        main: GraphView,
        library: Mapping[str, GraphView],
        followed: dict[int, Target],
        scope: Scope | None = None,
    ) -> None:
        self._library = library
        self._calls: dict[Context, list[tuple[Context, node_def_pb2.NodeDef]]] = {}
        self._entered_otherwise: set[Context] = set()
        self._callees: dict[tuple[Context, str], list[Context]] = {}
        self._frames: dict[Context, Frame] = {}
        self._known = Contexts(library)
        self.fetched = [info.name for signature in meta.signature_def.values() for info in signature.outputs.values()]
        roots = Roots(meta, followed, self._known, scope)
        first = roots.main_context(main)
        self.contexts: dict[tuple[str, Binding], Context] = {(main.name, ()): first}
        self._work = [first]
        for name in roots.functions():
            binding = roots.binding(name)
            for variable in self._known.returned(name, binding):
                if variable is not None:
                    refuse(
                        "expected handles to stay inside of the model, found a function that returns one",
                        variable=followed[variable].name,
                        function=name,
                    )
            self._entered_otherwise.add(self._context(name, binding))
        # What TensorFlow looks up by the name of a gradient is called from outside, too.
        functions = meta.graph_def.library
        gradients = [gradient.gradient_func for gradient in (*functions.gradient, *functions.registered_gradients)]
        for name in sorted(set(gradients) & set(library)):
            self._entered_otherwise.add(self._context(name, ()))
        while self._work:
            self._enter(self._work.pop())

    def frame(self, context: Context) -> Frame:
        """A body as it is entered from anywhere."""
        if context not in self._frames:
            self._frames[context] = Frame(context, entries=self.entries)
        return self._frames[context]

    def entries(self, context: Context) -> Entries:
        """How a body is entered."""
        calls = [(self.frame(caller), node) for caller, node in self._calls.get(context, ())]
        return Entries(calls, context in self._entered_otherwise)

    def callees(self, context: Context, node: str) -> list[Context]:
        """The bodies that a node enters so that values are followed there."""
        return self._callees.get((context, node), [])

    def callers(self, context: Context) -> list[tuple[Context, node_def_pb2.NodeDef]]:
        """The calls of a body from which values are followed."""
        return self._calls.get(context, [])

    def entered_otherwise(self, context: Context) -> bool:
        """Whether a body is entered by something that values are not followed from: what it returns goes elsewhere."""
        return context in self._entered_otherwise

    def _context(self, function: str, binding: Binding) -> Context:
        key = (function, binding)
        if key not in self.contexts:
            self.contexts[key] = self._known.of(function, binding)
            self._work.append(self.contexts[key])
        return self.contexts[key]

    def _enter(self, context: Context) -> None:
        for node in context.view.nodes.values():
            if node.name not in context.view.naming and node.op not in self._library:
                continue
            context.check_loop(node)
            known = context.is_call(node)
            for slot in call_slots(node, self._library):
                callee = self._context(slot.function, context.binding_of(node, slot) if known else ())
                # The main graph of a model with objects only calls: what it takes is given out.
                if context.counts(node.name) and _hands_values(node, slot) and has_values(context):
                    self._calls.setdefault(callee, []).append((context, node))
                    self._callees.setdefault((context, node.name), []).append(callee)
                else:
                    self._entered_otherwise.add(callee)


def has_values(context: Context) -> bool:
    """Whether a body is one in which values are followed: a function, or what a session runs as a whole."""
    return context.view.definition is not None or context.is_session


def _hands_values(node: node_def_pb2.NodeDef, slot: CallSlot) -> bool:
    return node.op in FOLLOWED and slot.attribute in ("f", "then_branch", "else_branch")
