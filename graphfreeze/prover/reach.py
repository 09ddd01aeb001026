"""What is reached from a tensor of a body: backwards the values it has, and forwards the updates that it changes."""

from __future__ import annotations

from collections.abc import Container, Iterator

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.frames import source_of
from graphfreeze.prover.graph_view import Tensor, data_inputs
from graphfreeze.prover.handles import READS, Context
from graphfreeze.prover.session_graph import REFERENCE_NODES, takes_value
from graphfreeze.prover.squares import behind
from graphfreeze.prover.writes import write_of

__all__ = ["Reach"]


class Reach:
    """The body, with what was found in it.

    Args:
        context: The body.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._values: dict[tuple[Tensor, bool], frozenset[int | None]] = {}
        self._updates: dict[str, frozenset[str]] = {}
        self._reads: dict[Tensor, list[str]] | None = None

    def values_behind(self, tensor: Tensor, moved: bool = False) -> frozenset[int | None]:
        """The variables from whose values a tensor is computed, element by element.

        Args:
            tensor: The tensor.
            moved: Whether elements may also come to other places on the way.

        Returns:
            Their object nodes; None stands for all that are not followed, for arguments, and for references.
        """
        if (tensor, moved) not in self._values:
            found: set[int | None] = set()
            for made in behind(self._context.view, tensor, moved):
                node = self._context.view.nodes.get(made.node)
                if node is None or node.op in REFERENCE_NODES:
                    found.add(None)
                elif node.op in READS:
                    found.add(self._context.variable_of(node.input[0]))
            self._values[tensor, moved] = frozenset(found)
        return self._values[tensor, moved]

    def gives_out(self, name: str) -> bool:
        """Whether the body may return something that is computed with what a node yields; the main graph always may."""
        view = self._context.view
        if view.definition is None:
            return True
        returned = {Tensor.parse(text).node for text in view.returns.values()}
        work, seen = [name], {name}
        while work:
            made = work.pop()
            if made in returned:
                return True
            fresh = {node.name for node, _ in view.takers.get(made, ())} - seen
            seen |= fresh
            work += fresh
        return False

    def reaches(self, name: str, owner: int, slots: Container[int], targets: Container[int]) -> bool:
        """Whether what a node yields reaches an update of a variable or of its slots.

        Where it reaches an update of another variable, what is read from that one is followed, too.

        Args:
            name: The node.
            owner: The variable.
            slots: Its slots.
            targets: The targeted variables: what is read from these is not followed.
        """
        work, seen = [name], {name}
        while work:
            for handle in self._updated_from(work.pop()):
                variable = self._context.variable_of(handle)
                if variable is not None and (variable == owner or variable in slots):
                    return True
                if variable is None or variable not in targets:
                    same = source_of(self._context.view, handle)
                    fresh = [read for read in self._reads_of(same) if read not in seen]
                    seen.update(fresh)
                    work += fresh
        return False

    def _updated_from(self, name: str) -> frozenset[str]:
        """The handles and references of the variables in whose writes something of a node has a part."""
        view = self._context.view
        # Norms of many gradients come together soon: from there on, they are followed once.
        passed: set[str] = set()
        takers = view.takers.get(name, [])
        while name not in passed and len(takers) == 1 and write_of(takers[0][0]) is None:
            passed.add(name)
            name = takers[0][0].name
            takers = view.takers.get(name, [])
        if name not in self._updates:
            found: set[str] = set()
            work, seen = [name], {name}
            while work:
                for node, _ in view.takers.get(work.pop(), ()):
                    if node.name in seen:
                        continue
                    seen.add(node.name)
                    write = write_of(node)
                    if write is None:
                        work.append(node.name)
                    else:
                        found.update(node.input[position] for position in write.handles)
            self._updates[name] = frozenset(found)
        return self._updates[name]

    def _reads_of(self, handle: Tensor) -> list[str]:
        """The nodes that read a variable by the same handle or reference."""
        if self._reads is None:
            self._reads = {}
            for node in self._context.view.nodes.values():
                for source in self._read_by(node):
                    self._reads.setdefault(source, []).append(node.name)
        return self._reads.get(handle, [])

    def _read_by(self, node: node_def_pb2.NodeDef) -> Iterator[Tensor]:
        view = self._context.view
        inputs = data_inputs(node)
        if node.op in READS:
            yield source_of(view, inputs[0])
            return
        for position, text in enumerate(inputs):
            made = view.nodes.get(Tensor.parse(text).node)
            if made is not None and made.op in REFERENCE_NODES and takes_value(node, position):
                yield Tensor.parse(text)
