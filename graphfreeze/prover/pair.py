"""One proof obligation: a rewritten body is the original one, except for the masked reads that its context asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import CallSlot, GraphView, Tensor, call_slots, data_inputs
from graphfreeze.prover.handles import READS, Binding, Context
from graphfreeze.prover.influence import Zeroed
from graphfreeze.prover.masked_direction import MaskedDirections
from graphfreeze.prover.masked_read import MaskedReads
from graphfreeze.prover.masked_update import MaskedUpdates
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.targets import Target
from graphfreeze.prover.uses import Uses

__all__ = ["Consumer", "Pair", "PairEvidence"]

Obligation = Callable[[str, str, Binding], None]


@dataclass(frozen=True)
class Consumer:
    """A consumer of a tensor that is no node: a return value, a signature's output, a captured tensor."""

    label: str
    original: str
    rewritten: str


@dataclass
class PairEvidence:
    """What was found in one body.

    Attributes:
        masked: Of each raw tensor that is consumed masked: object node of the variable, node, operation.
        updated: Of each masked update: object node of the variable or slot, node, operation.
        unread: Reads of targeted variables that nothing consumes.
        nodes: How many nodes of the original were compared.
        identical: How many of them are the same bytes.
        added: How many nodes were added.
    """

    masked: list[tuple[int, str, str]] = field(default_factory=list)
    updated: list[tuple[int, str, str]] = field(default_factory=list)
    unread: int = 0
    nodes: int = 0
    identical: int = 0
    added: int = 0


class Pair:
    """A body of the original in its context, and the body that stands for it in the rewritten model.

    Args:
        context: The original body, with the targeted variables that its handles carry.
        rewritten: The rewritten body.
        library: The functions of the rewritten model, for its callees.
        targets: The targeted variables by object node.
        oblige: Takes each callee pair that has to be proven in turn.
        zeroed: Where frozen elements have to be zero in the body, if anywhere.
        consumers: Further consumers of the body's tensors.
    """

    def __init__(
        self,
        context: Context,
        rewritten: GraphView,
        library: dict[str, GraphView],
        targets: dict[int, Target],
        oblige: Obligation,
        zeroed: Zeroed | None = None,
        consumers: Sequence[Consumer] = (),
    ) -> None:
        self._context = context
        self._original = context.view
        self._rewritten = rewritten
        self._library = library
        self._targets = targets
        self._oblige = oblige
        self._zeroed = zeroed or Zeroed({}, {})
        self._consumers = consumers
        self._evidence = PairEvidence()
        self._uses: Uses  # of bodies that have the same nodes
        self._masked: set[tuple[str, int]] = set()

    def prove(self) -> PairEvidence:
        """Prove the obligation.

        Raises:
            VerificationError: The bodies differ in more than masked reads, or a read is not masked as planned.
        """
        self._check_names()
        self._check_definition()
        captured = [consumer.original for consumer in self._consumers]
        self._uses = Uses(self._context, self._rewritten, self._targets, self._zeroed, captured)
        reads = MaskedReads(self._original, self._rewritten, self._uses.raws)
        updates = MaskedUpdates(self._original, self._rewritten, self._uses.updates, reads)
        directions = MaskedDirections(self._original, self._rewritten, self._zeroed.beginnings, reads)
        self._check_control_outputs(updates)
        for name, node in self._original.nodes.items():
            self._compare_node(node, self._rewritten.nodes[name], reads, updates, directions)
        for name, update in self._uses.updates.items():
            if update.write.applies:
                updates.prove_restored(name)
            self._evidence.updated += [(t.node_id, name, update.node.op) for t in update.targets]
        self._evidence.updated += directions.evidence
        for name, text in self._original.returns.items():
            self._compare_tensor(Consumer(f"output {name!r}", text, self._rewritten.returns.get(name, "")), reads)
        for consumer in self._consumers:
            self._compare_tensor(consumer, reads, waits=set() if self._gives_value(consumer.original) else None)
        reads.account_for_all()
        self._evidence.nodes = len(self._original.nodes)
        self._evidence.added = len(reads.added)
        for key, raw in sorted(self._uses.raws.items()):
            if key in self._masked:
                self._evidence.masked.append((raw.target.node_id, raw.node.name, raw.node.op))
        consumed = {key[0] for key in self._masked} | {
            Tensor.parse(self._original.nodes[name].input[0]).node for name in self._uses.gathered
        }
        self._evidence.unread = sum(
            raw.node.op in READS and key[0] not in consumed for key, raw in self._uses.raws.items()
        )
        return self._evidence

    def _fail(self, message: str, node: str | None = None, variable: str | None = None, **facts: object) -> NoReturn:
        refuse(message, variable=variable, function=self._rewritten.name, node=node, **facts)

    # The frame around the nodes.

    def _check_names(self) -> None:
        kept = [name for name in self._rewritten.nodes if name in self._original.nodes]
        expected = list(self._original.nodes)
        if kept != expected:
            lost = [name for name in expected if name not in self._rewritten.nodes]
            self._fail("expected every original node, in its place, found one missing or moved", (lost or kept)[0])
        clash = [n for n in self._rewritten.nodes if n in self._rewritten.arguments and n not in self._original.nodes]
        if clash:
            self._fail("expected added nodes with names of their own, found an argument's name", clash[0])

    def _check_definition(self) -> None:
        before, after = self._original.definition, self._rewritten.definition
        if before is None or after is None:
            return
        different = differing_fields(before, after, skip=("node_def", "ret", "signature", "control_ret"))
        different += [f"signature.{f}" for f in differing_fields(before.signature, after.signature, skip=("name",))]
        if set(before.ret) != set(after.ret):
            different.append("ret")
        if different:
            self._fail(f"expected the function to differ in masked reads only, found another {', '.join(different)}")

    def _check_control_outputs(self, updates: MaskedUpdates) -> None:
        before, after = self._original.definition, self._rewritten.definition
        if before is None or after is None:
            return
        if {key: updates.node_waited_for(name) for key, name in before.control_ret.items()} != dict(after.control_ret):
            self._fail("expected the function to differ in masked reads and updates only, found another control_ret")

    # Node by node.

    def _compare_node(
        self,
        before: node_def_pb2.NodeDef,
        after: node_def_pb2.NodeDef,
        reads: MaskedReads,
        updates: MaskedUpdates,
        directions: MaskedDirections,
    ) -> None:
        same = before.SerializeToString(deterministic=True) == after.SerializeToString(deterministic=True)
        self._evidence.identical += same
        if not same:
            different = differing_fields(before, after, skip=("op", "input", "attr"))
            if set(before.attr) != set(after.attr):
                different += [f"attribute {name}" for name in sorted(set(before.attr) ^ set(after.attr))]
            added = len(before.input)
            if len(after.input) < added or list(after.input[added:]) != updates.added_controls(before.name):
                different.append("number of inputs")
            if different:
                self._fail(
                    f"expected the node to stay as it is, found another {', '.join(different)}",
                    before.name,
                    fields=different,
                )
        if not same or self._uses.raws or self._uses.updates or self._uses.values or self._zeroed.beginnings:
            for position, (old, new) in enumerate(zip(before.input, after.input, strict=False)):
                inside = self._context.counts(before.name) and directions.takes(before, position)
                value = directions.masked(before, position, after) if inside else new
                self._compare_input(before, position, old, value, reads, updates)
        self._compare_callees(before, after, same)

    def _compare_input(
        self, node: node_def_pb2.NodeDef, position: int, old: str, new: str, reads: MaskedReads, updates: MaskedUpdates
    ) -> None:
        update = self._uses.updates.get(node.name)
        if old.startswith("^"):
            if updates.waited_for(old) != new:
                self._fail(f"expected the control input {updates.waited_for(old)!r}, found {new!r}", node.name)
        elif update is not None and not update.write.applies and position == update.write.value:
            value = Consumer(f"input {position}", old, updates.masked_value(node.name))
            self._compare_tensor(value, reads, node.name, self._waits_of(node, position, updates))
        elif node.name in self._uses.gathered and position == 0:
            return
        elif self._context.counts(node.name):
            waits = self._waits_of(node, position, updates)
            self._compare_tensor(Consumer(f"input {position}", old, new), reads, node.name, waits)
        elif old != new:
            self._fail(
                f"expected input {position} to stay {old!r} outside of every signature, found {new!r}", node.name
            )

    def _waits_of(self, node: node_def_pb2.NodeDef, position: int, updates: MaskedUpdates) -> set[str] | None:
        """What a masked read of a node's own waits for; None where it takes one that others share.

        What a read of a reference yields is the variable's memory: after a write, its consumers see the new value. So
        those that run after one have reads of their own, as have those that take the reference itself.
        """
        taken = Tensor.parse(node.input[position])
        if (node.name, position) not in self._uses.values:
            raw = self._uses.raws.get(taken.key)
            if raw is None or raw.of is not None or raw.node.op != "Identity":
                return None
            if node.name not in self._context.after_writes(raw.target.node_id):
                return None
        if node.op == "Merge":
            return set()
        others = {f"^{Tensor.parse(text).node}" for text in data_inputs(node) if Tensor.parse(text) != taken}
        return {updates.waited_for(text) for text in others | {text for text in node.input if text.startswith("^")}}

    def _gives_value(self, text: str) -> bool:
        """Whether a consumer that is no node gets the value of a reference whose variable is targeted."""
        variable = self._context.variable_of(text) if self._context.is_reference(text) else None
        return variable is not None and self._targets[variable].slot_of is None

    def _compare_tensor(
        self, consumer: Consumer, reads: MaskedReads, node: str | None = None, waits: set[str] | None = None
    ) -> None:
        """A consumer takes what it took; where that is a raw read of a targeted variable, it takes it masked.

        Args:
            consumer: The consumer.
            reads: The masked reads.
            node: Its name, where it is a node.
            waits: Where it has to have a masked read of its own: the control inputs of that.
        """
        old, new = consumer.original, consumer.rewritten
        raw = self._uses.raws.get(Tensor.parse(old).key)
        if waits is not None:
            added = reads.added_read(new) if Tensor.parse(new).node in reads.added else None
            if added is None or added.of != Tensor.parse(old) or set(added.node.input[1:]) != waits:
                self._fail(f"expected {consumer.label} to be a masked read of {old!r}, found {new!r}", node)
            self._masked.add((added.node.name, 0))
        elif Tensor.parse(new).node in reads.added:
            behind = reads.raw_behind(new)
            if behind.key != Tensor.parse(old).key:
                self._fail(f"expected {consumer.label} to be {old!r} masked, found {behind.node!r} masked", node)
            self._masked.add(behind.key)
        elif raw is not None:
            self._fail(
                f"expected {consumer.label} to be masked, found the unmasked read {new!r}",
                node or raw.node.name,
                raw.target.name,
            )
        elif old != new:
            self._fail(f"expected {consumer.label} to be {old!r}, found {new!r}", node)

    def _compare_callees(self, before: node_def_pb2.NodeDef, after: node_def_pb2.NodeDef, same: bool) -> None:
        old_slots = call_slots(before, self._context.contexts.library)
        new_slots = old_slots if same else call_slots(after, self._library)
        if [(slot.attribute, slot.position) for slot in old_slots] != [(s.attribute, s.position) for s in new_slots]:
            self._fail("expected the node to call a function in the same places, found other places", before.name)
        if not same:
            renamed = type(after)()
            renamed.CopyFrom(after)
            for slot in old_slots:
                _rename(renamed, slot)
            different = differing_fields(before, renamed, skip=("input",))
            if different:
                names = [n for n in sorted(before.attr) if differing_fields(before.attr[n], renamed.attr[n])]
                self._fail(
                    f"expected the node to stay as it is, found another {', '.join(different)}"
                    + (f" ({', '.join(names)})" if names else ""),
                    before.name,
                    fields=different,
                    attributes=names,
                )
        for old, new in zip(old_slots, new_slots, strict=True):
            known = old.attribute == "op" or self._context.is_call(before)
            self._oblige(old.function, new.function, self._context.binding_of(before, old) if known else ())


def _rename(node: node_def_pb2.NodeDef, slot: CallSlot) -> None:
    """Let the node name the original's function in that place."""
    if slot.attribute == "op":
        node.op = slot.function
    elif slot.position is None:
        node.attr[slot.attribute].func.name = slot.function
    else:
        node.attr[slot.attribute].list.func[slot.position].name = slot.function
