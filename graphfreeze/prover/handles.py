"""Which variable does a resource tensor carry? Answered backwards, on demand, from the tensor to its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import CallSlot, GraphView, Tensor, call_slots, data_inputs
from graphfreeze.prover.writes import write_of

__all__ = ["GATHERS", "READS", "Binding", "Context", "Contexts"]

Binding = tuple[tuple[int, int], ...]
"""Sorted pairs of argument position and object node of the targeted variable that the argument carries."""

READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd"})
GATHERS = frozenset({"ResourceGather", "ResourceGatherNd"})
CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall", "TPUPartitionedCall"})
LOOPS = frozenset({"While", "StatelessWhile"})
BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
SAME = frozenset({"Identity", "RefIdentity", "IdentityN"})
HARMLESS = frozenset({"VariableShape", "VarIsInitializedOp", "DisableCopyOnRead", "DestroyResourceOp"})


@dataclass(eq=False)
class Context:
    """A function body, or the main graph, together with what its handles carry.

    Attributes:
        view: The body.
        sources: The variable by tensor: bound arguments, and handle nodes in the main graph.
        contexts: All contexts of the same model.
        live: The nodes that count; None means all. Elsewhere nothing is targeted.
        references: Those of the sources that are references, not handles: what is computed from them is a value.
        initialising: The nodes whose writes initialise or restore.
        is_session: Whether it is a main graph without objects, which a session runs as a whole.
    """

    view: GraphView
    sources: dict[tuple[str, int], int]
    contexts: Contexts
    live: frozenset[str] | None = None
    references: frozenset[tuple[str, int]] = frozenset()
    initialising: frozenset[str] = frozenset()
    is_session: bool = False
    _known: dict[str, int | None] = field(default_factory=dict)
    _late: dict[int, frozenset[str]] = field(default_factory=dict)
    _written: dict[str, set[int]] | None = None
    _next: dict[str, list[str]] | None = None

    def counts(self, node: str) -> bool:
        """Whether targeted variables are to be masked at that node."""
        return self.live is None or node in self.live

    def is_reference(self, text: str) -> bool:
        """Whether the tensor is the reference of a targeted variable."""
        return Tensor.parse(text).key in self.references

    def after_writes(self, variable: int) -> frozenset[str]:
        """The nodes that run after any write of a variable."""
        if variable not in self._late:
            found: set[str] = set()
            work = [name for name, variables in self._writers().items() if variable in variables]
            while work:
                fresh = [name for name in self._successors().get(work.pop(), ()) if name not in found]
                found.update(fresh)
                work += fresh
            self._late[variable] = frozenset(found)
        return self._late[variable]

    def _writers(self) -> dict[str, set[int]]:
        """The nodes that write, and which variables."""
        if self._written is None:
            self._written = {}
            for name, node in self.view.nodes.items():
                write = write_of(node)
                handles = [] if write is None else [node.input[position] for position in write.handles]
                self._written[name] = {v for text in handles if (v := self.variable_of(text)) is not None}
        return self._written

    def _successors(self) -> dict[str, list[str]]:
        """By node, those that take something of it or wait for it."""
        if self._next is None:
            self._next = {}
            for name, node in self.view.nodes.items():
                for text in node.input:
                    self._next.setdefault(Tensor.parse(text.lstrip("^")).node, []).append(name)
        return self._next

    def switches(self, node: node_def_pb2.NodeDef, position: int) -> bool:
        """Whether a node hands on what it takes there to a branch or into a loop, as TensorFlow 1 has them."""
        return self.is_session and node.op in ("Switch", "Enter") and position == 0

    def variable_of(self, text: str) -> int | None:
        """The object node of the targeted variable whose handle the tensor carries, or None."""
        if not self.sources:
            return None
        # A stack instead of recursion: in a deep model hundreds of calls follow one another.
        waiting, open_calls = [text], set[str]()
        while waiting:
            current = waiting[-1]
            if current not in self._known:
                origin, node = self._origin(current)
                needed = [other for other in self._call_inputs(node) if other not in self._known]
                if not open_calls.isdisjoint(needed):
                    refuse("expected no cycle of calls, found one", function=self.view.name, node=origin.node)
                if needed:
                    open_calls.add(current)
                    waiting.extend(needed)
                    continue
                self._known[current] = self.sources.get(origin.key) if node is None else self._returned(node, origin)
            open_calls.discard(current)
            waiting.pop()
        return self._known[text]

    def _origin(self, text: str) -> tuple[Tensor, node_def_pb2.NodeDef | None]:
        """Where the tensor comes from, behind operations that hand it on; without a node if that is a known source."""
        seen: set[str] = set()
        while True:
            tensor = Tensor.parse(text)
            node = self.view.nodes.get(tensor.node)
            if tensor.key in self.sources or node is None or text in seen:
                return tensor, None
            seen.add(text)
            inputs = data_inputs(node)
            if self.switches(node, 0) and inputs:
                text = inputs[0]
                continue
            # What a loop returns at k is what it was given at k: `check_loop` proves that for every loop.
            if (node.op in SAME or node.op in LOOPS) and tensor.position < len(inputs):
                text = inputs[tensor.position]
                if not self.is_reference(text):
                    continue
            return tensor, node

    def _call_inputs(self, node: node_def_pb2.NodeDef | None) -> list[str]:
        """What the node passes to functions; nothing if it calls none."""
        library = self.contexts.library
        if node is None or (node.name not in self.view.naming and node.op not in library):
            return []
        if not call_slots(node, library):
            return []
        return [text for text in data_inputs(node) if not self.is_reference(text)]

    def _returned(self, node: node_def_pb2.NodeDef, tensor: Tensor) -> int | None:
        if not any(self._known.get(text) is not None for text in self._call_inputs(node)):
            return None
        found: set[int | None] = set()
        for slot in call_slots(node, self.contexts.library):
            outputs = self.contexts.library[slot.function].outputs
            position = outputs.index(tensor.output) if tensor.output in outputs else tensor.position
            returned = self.contexts.returned(slot.function, self.binding_of(node, slot))
            found.add(returned[position] if position < len(returned) else None)
        if len(found) > 1:
            refuse(
                "expected every branch to return the handle of the same variable, found different ones",
                function=self.view.name,
                node=node.name,
            )
        return found.pop() if found else None

    def binding_of(self, node: node_def_pb2.NodeDef, slot: CallSlot) -> Binding:
        """What the arguments of the called function carry at this call site."""
        if not self.sources or not self.counts(node.name):
            return ()
        first = 1 if node.op in BRANCHES else 0
        # A function takes the value of a reference.
        inputs = data_inputs(node)[first:]
        carried = [None if self.is_reference(text) else self.variable_of(text) for text in inputs]
        return tuple((position, variable) for position, variable in enumerate(carried) if variable is not None)

    def is_call(self, node: node_def_pb2.NodeDef) -> bool:
        """Whether the node passes its data inputs to a function in a known way."""
        return node.op in CALLS or node.op in LOOPS or node.op in BRANCHES or node.op in self.contexts.library

    def check_loop(self, node: node_def_pb2.NodeDef) -> None:
        """Prove that a loop hands each targeted handle on in its own place.

        Raises:
            VerificationError: The body returns a handle in another place, or another handle.
        """
        if node.op not in LOOPS:
            return
        for slot in call_slots(node, self.contexts.library):
            if slot.attribute != "body":
                continue
            binding = self.binding_of(node, slot)
            carried = dict(binding)
            returned = self.contexts.returned(slot.function, binding)
            if any(carried.get(position) != variable for position, variable in enumerate(returned)):
                refuse(
                    "expected the loop to carry each variable's handle unchanged, found that its body swaps handles",
                    function=self.view.name,
                    node=node.name,
                )


class Contexts:
    """All (function, binding) contexts of one model.

    Args:
        library: The functions by name.
    """

    def __init__(self, library: Mapping[str, GraphView]) -> None:
        self.library = library
        self._contexts: dict[tuple[str, Binding], Context] = {}
        self._returned: dict[tuple[str, Binding], tuple[int | None, ...] | None] = {}

    def of(self, function: str, binding: Binding) -> Context:
        """The context of a function of the library under a binding."""
        key = (function, binding)
        if key not in self._contexts:
            view = self.library[function]
            names = list(view.arguments)
            if any(position >= len(names) for position, _ in binding):
                refuse(f"expected {len(names)} arguments at each call, found a call with more", function=function)
            sources = {(names[position], 0): variable for position, variable in binding}
            self._contexts[key] = Context(view, sources, self)
        return self._contexts[key]

    def returned(self, function: str, binding: Binding) -> tuple[int | None, ...]:
        """For each output of the function, the targeted variable whose handle it carries."""
        key = (function, binding)
        if key in self._returned:
            known = self._returned[key]
            if known is None:
                refuse("expected functions that do not call themselves, found recursion", function=function)
            return known
        self._returned[key] = None
        context = self.of(function, binding)
        view = context.view
        result = tuple(context.variable_of(view.returns.get(name, "")) for name in view.outputs)
        self._returned[key] = result
        return result
