"""Recognise the masked updates of one function body: what keeps frozen elements in storage as they are.

a write whose value is `SelectV2(mask, value, unchanged)`, where `unchanged` is the number that writes nothing new,
or what is stored there
an optimizer's operation after which `SelectV2(mask, stored after, stored before)` is assigned to the variable and to
each slot, and for which all that waited now waits for these assignments
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tensorflow.core.framework import node_def_pb2, types_pb2

from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.masked_read import MaskedReads
from graphfreeze.prover.targets import Target
from graphfreeze.prover.update_nodes import Update, UpdateNodes

__all__ = ["MaskedUpdates"]

STORED = {None: ("ReadVariableOp", "value"), False: ("ResourceGather", "output"), True: ("ResourceGatherNd", "output")}
"""The read of what is stored, and its output: of everything, of rows, of elements."""
STORED_BEHIND = {None: "DeepCopy", False: "GatherV2", True: "GatherNd"}
"""The same of a reference: what the update changes must not be what is read."""


@dataclass(frozen=True)
class _Restored:
    """What is assigned after an optimizer's operation: which variable, and the read before it."""

    update: str
    handle: str
    before: node_def_pb2.NodeDef
    assigned: node_def_pb2.NodeDef
    mask: str


class MaskedUpdates:
    """The masked updates of one function body.

    Args:
        original: The body in the original model.
        rewritten: The body in the rewritten model.
        updates: The nodes that write targeted variables or their slots, by name.
        reads: The masked reads; the nodes that belong to updates are accounted for there.
    """

    def __init__(
        self, original: GraphView, rewritten: GraphView, updates: Mapping[str, Update], reads: MaskedReads
    ) -> None:
        self._view = rewritten
        self._nodes = UpdateNodes(original, rewritten, reads)
        self._updates = updates
        self._reads = reads
        self._restored: dict[str, list[_Restored]] = {}
        self._waits: dict[str, str] = {}
        for name in sorted(reads.added):
            if rewritten.nodes[name].op == "NoOp":
                self._find_restored(rewritten.nodes[name])
        for name, update in updates.items():
            if update.write.applies and name not in self._waits:
                self._nodes.fail(
                    "expected frozen elements to be put back after the update, found no such nodes", update
                )

    def waited_for(self, control: str) -> str:
        """What a control input of the original (`^node`) is in the rewritten model."""
        return f"^{self._waits.get(control[1:], control[1:])}"

    def node_waited_for(self, name: str) -> str:
        """The node that stands for a node of the original in the function's control outputs."""
        return self._waits.get(name, name)

    def added_controls(self, name: str) -> list[str]:
        """The control inputs that an update has more than in the original: the reads before it."""
        return [f"^{restored.before.name}" for restored in self._restored.get(name, ())]

    def prove_restored(self, name: str) -> None:
        """Prove that all variables that an optimizer's operation writes are put back at frozen elements.

        Raises:
            VerificationError: They are not.
        """
        update = self._updates[name]
        node, write = update.node, update.write
        found = {restored.handle: restored for restored in self._restored[name]}
        if len(found) < len(self._restored[name]) or set(found) != {node.input[position] for position in write.handles}:
            self._nodes.fail("expected each variable that the update writes to be put back, found others", update)
        own = set(self.added_controls(name))
        controls = sorted(text for text in node.input if text.startswith("^") and text not in own)
        for position, target in zip(write.handles, update.targets, strict=True):
            restored = found[node.input[position]]
            self._nodes.prove_mask(restored.mask, target, update)
            self._prove_stored(restored.before, position, target, update, controls)
            whole, rows = (
                ("Assign", "ScatterUpdate") if write.reference else ("AssignVariableOp", "ResourceScatterUpdate")
            )
            assign = whole if write.indices is None else rows
            if restored.assigned.op != assign or len(restored.assigned.input) != (2 if write.indices is None else 3):
                self._nodes.fail(f"expected {assign}, found {restored.assigned.op} or other inputs", update, target)
            if write.indices is not None and restored.assigned.input[1] != node.input[write.indices]:
                self._nodes.fail(
                    "expected rows to be put back at the update's indices, found other indices", update, target
                )
            types = {"T" if write.reference else "dtype": target.dtype} | self._nodes.indices_type(update)
            self._nodes.plain(restored.assigned, types, update)
            kept = self._view.nodes[Tensor.parse(restored.assigned.input[-1]).node]
            self._nodes.plain(kept, {"T": target.dtype}, update)
            after = self._view.nodes[Tensor.parse(kept.input[1]).node]
            self._prove_stored(after, position, target, update, [f"^{name}"])

    def masked_value(self, name: str) -> str:
        """Prove that a write leaves frozen elements as they are.

        Returns:
            The tensor that it writes at trainable elements.

        Raises:
            VerificationError: It does not.
        """
        update = self._updates[name]
        (target,) = update.targets
        kept = self._nodes.added(update.node.input[update.write.value], "SelectV2", "output", update)
        if kept is None or len(kept.input) != 3:
            self._nodes.fail("expected the value that is written to be masked, found it unmasked", update)
        self._nodes.plain(kept, {"T": target.dtype}, update)
        mask, value, unchanged = kept.input
        self._nodes.prove_mask(mask, target, update)
        if update.write.unchanged is None:
            stored = self._view.nodes.get(Tensor.parse(unchanged).node)
            controls = sorted(text for text in update.node.input if text.startswith("^"))
            if stored is None or stored.name not in self._reads.added:
                self._nodes.fail(
                    "expected what is stored to be written at frozen elements, found something else", update
                )
            self._prove_stored(stored, 0, target, update, controls)
            output = "output" if update.write.reference else STORED[self._kind(update)][1]
            self._nodes.check_output(unchanged, output, update)
        else:
            self._nodes.prove_unchanged(unchanged, target, update, update.write.unchanged)
        return str(value)

    # The parts.

    def _find_restored(self, done: node_def_pb2.NodeDef) -> None:
        """A NoOp that waits for assignments, each of which waits for one and the same update."""
        found: list[_Restored] = []
        for control in done.input:
            assigned = self._view.nodes.get(control[1:]) if control.startswith("^") else None
            restored = self._restored_by(assigned) if assigned is not None else None
            if restored is None:
                return
            found.append(restored)
        names = {restored.update for restored in found}
        name = names.pop() if len(names) == 1 else ""
        if name not in self._updates or not self._updates[name].write.applies or name in self._waits:
            return
        self._waits[name] = done.name
        self._restored[name] = found
        self._nodes.plain(done, {}, self._updates[name], controls=True)

    def _restored_by(self, assigned: node_def_pb2.NodeDef) -> _Restored | None:
        inputs = data_inputs(assigned)
        if assigned.name not in self._reads.added or len(inputs) != len(assigned.input) or len(inputs) < 2:
            return None
        kept = self._view.nodes.get(Tensor.parse(inputs[-1]).node)
        if kept is None or kept.op != "SelectV2" or kept.name not in self._reads.added or len(kept.input) != 3:
            return None
        mask, *stored = kept.input
        after, before = (self._view.nodes.get(Tensor.parse(text).node) for text in stored)
        if after is None or before is None or not {after.name, before.name} <= self._reads.added:
            return None
        controls = [text for text in after.input if text.startswith("^")]
        if len(controls) != 1:
            return None
        for text, read in zip(stored, (after, before), strict=True):
            outputs = {(operation, self._nodes.named(output)) for operation, output in STORED.values()}
            if self._view.definition is None:
                outputs |= {(operation, "") for operation in STORED_BEHIND.values()}
            if Tensor.parse(text).position != 0 or (read.op, Tensor.parse(text).output) not in outputs:
                return None
        if Tensor.parse(inputs[-1]).output != self._nodes.named("output") or Tensor.parse(inputs[-1]).position != 0:
            return None
        return _Restored(controls[0][1:], inputs[0], before, assigned, mask)

    def _prove_stored(
        self, read: node_def_pb2.NodeDef, handle: int, target: Target, update: Update, controls: Sequence[str]
    ) -> None:
        """A read of what is stored where the update writes, when exactly these nodes are done."""
        write, node = update.write, update.node
        operation, _ = STORED[self._kind(update)]
        expected = [node.input[handle], *([] if write.indices is None else [node.input[write.indices]])]
        types = {"dtype": target.dtype} | self._nodes.indices_type(update)
        if write.reference:
            operation = STORED_BEHIND[self._kind(update)]
            types = {"T": target.dtype}
            if write.indices is not None:
                types = {"Tparams": target.dtype} | self._nodes.indices_type(update)
            if operation == "GatherV2":
                types["Taxis"] = types_pb2.DT_INT32
                self._nodes.prove_axis(read, update, target)
                expected.append(read.input[2])
        if read.op != operation or data_inputs(read) != expected:
            self._nodes.fail(
                f"expected {operation} of {', '.join(expected)}, found {read.op} of {', '.join(data_inputs(read))}",
                update,
                target,
            )
        if sorted(text for text in read.input if text.startswith("^")) != list(controls):
            self._nodes.fail(
                f"expected the read {read.name!r} to wait for {', '.join(controls) or 'nothing'}", update, target
            )
        self._nodes.plain(read, types, update, controls=True)

    def _kind(self, update: Update) -> bool | None:
        return None if update.write.indices is None else update.write.by_element
