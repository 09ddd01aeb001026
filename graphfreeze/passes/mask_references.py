"""Masking what takes the value of a reference at the time at which it runs itself.

That is what takes a reference without a read, as operations of TensorFlow 1 may; and what takes a read of it, which is
the variable's own memory, after a write. Each such operation `C` gets a read of its own, `C/graphfreeze/read`: an
Identity that waits for all that `C` waits for, and is then masked like any other read. So does what a signature gives
out.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphfreeze.passes.main_graph import FunctionLike
from graphfreeze.passes.masked_read import MaskedReadBuilder
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.graph_flow import entered_by, takes_reference
from graphfreeze.savedmodel.handle_flow import Flow, UseKind
from graphfreeze.savedmodel.late_consumers import LateConsumers
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["ReferenceMasker"]


class ReferenceMasker:
    """Masks the values of references in the main graph.

    Args:
        function: The main graph, to be changed.
        body: The index of it as it was.
        flow: Where handles and references go in it.
        builder: What adds the nodes.
    """

    def __init__(self, function: FunctionLike, body: Body, flow: Flow, builder: MaskedReadBuilder) -> None:
        self._function = function
        self._body = body
        self._flow = flow
        self._builder = builder
        self._late = LateConsumers(body, flow)
        self.reads: list[tuple[FrozenVariable, str, str]] = []
        """The masked variables, each with the name and operation of the node that takes the value."""

    def mask_late_consumers(self, read: int, variable: int, frozen: FrozenVariable) -> frozenset[int]:
        """Mask a read for those that run after a write of the variable.

        Returns:
            The positions of these.
        """
        tensor = self._body.output(read, "output", 0)
        late = self._late.of(variable)
        found = [consumer for consumer in self._body.consumers.get(tensor, ()) if consumer.node in late]
        for i, position in found:
            self._mask(i, position, tensor, frozen)
        return frozenset(consumer.node for consumer in found)

    def mask_values(self, targets: Mapping[int, FrozenVariable]) -> dict[str, str]:
        """Mask what is taken of references without a read.

        Returns:
            Reference -> masked tensor that takes its place in signatures.
        """
        values = {(use.node, use.variable) for use in self._flow.uses if use.kind is UseKind.VALUE}
        given_out: dict[str, str] = {}
        for tensor, variable in self._flow.handles.items() if values else ():
            if variable not in targets:
                continue
            frozen = targets[variable]
            for i, position in self._body.consumers.get(tensor, ()):
                if (i, variable) in values and not takes_reference(self._body.nodes[i], position):
                    self._mask(i, position, tensor, frozen)
            if (-1, variable) in values and tensor in self._body.returned:
                self._builder.entered_by = None
                source = self._body.nodes[self._body.positions[tensor.split(":", 1)[0]]]
                raw = self._builder.value(source.name, tensor, (), source.device, frozen)
                given_out[tensor] = self._builder.whole(self._function.node_def[-1], raw, frozen)
                self.reads.append((frozen, source.name, source.op))
        return given_out

    def _mask(self, i: int, position: int, tensor: str, frozen: FrozenVariable) -> None:
        node = self._function.node_def[i]
        self._builder.entered_by = entered_by(self._body, tensor)
        raw = self._builder.value(node.name, tensor, self._late.waits_of(i, tensor), node.device, frozen)
        node.input[position] = self._builder.whole(self._function.node_def[-1], raw, frozen)
        self.reads.append((frozen, node.name, node.op))
