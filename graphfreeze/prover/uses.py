"""What a body does with the variables that are targeted: what has to be masked in it, and what put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from tensorflow.core.framework import node_def_pb2

from graphfreeze.prover.constants import decode
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs, integer_attr
from graphfreeze.prover.handles import HARMLESS, READS, SAME, Context
from graphfreeze.prover.influence import Zeroed
from graphfreeze.prover.masked_read import RawRead
from graphfreeze.prover.session_graph import REFERENCE_SAFE, takes_value
from graphfreeze.prover.targets import Target
from graphfreeze.prover.update_nodes import Update
from graphfreeze.prover.writes import NORM, write_of

__all__ = ["Uses"]


class Uses:
    """The uses of targeted variables in the original body, each with the node that stands for it in the rewritten one.

    Args:
        context: The original body, with the targeted variables that its handles carry.
        rewritten: The rewritten body, which has every node of the original.
        targets: The targeted variables by object node.
        zeroed: Where frozen elements have to be zero.
        captured: The tensors that consumers which are no nodes take.

    Attributes:
        raws: The raw tensors that have to be masked.
        gathered: The GatherV2 whose output is masked in place of their input.
        values: The inputs, by node and position, that take the value of a reference without a read.
        updates: The nodes that write.

    Raises:
        VerificationError: A use that is not understood.
    """

    def __init__(
        self,
        context: Context,
        rewritten: GraphView,
        targets: dict[int, Target],
        zeroed: Zeroed,
        captured: Sequence[str],
    ) -> None:
        self._context = context
        self._original = context.view
        self._rewritten = rewritten
        self._targets = targets
        self._captured = captured
        self._sources: set[str] | None = None
        self.raws: dict[tuple[str, int], RawRead] = {}
        self.gathered: set[str] = set()
        self.values: set[tuple[str, int]] = set()
        self.updates: dict[str, Update] = {}
        self._find_raw_reads()
        self._find_added_reads()
        for name, norm in zeroed.norms.items():
            self.updates[name] = Update(rewritten.nodes[name], NORM, (norm.target,), norm.rows)

    def _fail(self, message: str, node: str, variable: str) -> NoReturn:
        refuse(message, variable=variable, function=self._rewritten.name, node=node)

    def _find_raw_reads(self) -> None:
        for name, node in self._original.nodes.items():
            if not self._context.sources or not self._context.counts(name):
                continue
            self._context.check_loop(node)
            for position, text in enumerate(data_inputs(node)):
                variable = self._context.variable_of(text)
                if variable is not None:
                    self._check_use(node, position, self._targets[variable])
        for name, node in self._original.nodes.items():
            if node.op == "GatherV2" and len(node.input) >= 3 and self._context.counts(name):
                self._check_peephole(node)

    def _check_use(self, node: node_def_pb2.NodeDef, position: int, target: Target) -> None:
        """A handle may be read, written, passed on, or asked harmless things; nothing else is understood."""
        write = write_of(node)
        if self._context.is_reference(node.input[position]) and self._takes_value(node, position, target):
            return
        if target.slot_of is not None and node.op in READS and position == 0:
            return
        if node.name in self._context.initialising and write is not None and position in write.handles:
            return
        if write is not None and position in write.handles:
            variables = [self._context.variable_of(node.input[handle]) for handle in write.handles]
            known = tuple(self._targets[variable] for variable in variables if variable is not None)
            if len(known) < len(variables):
                self._fail("expected slots of the variable only, found another handle", node.name, target.name)
            if self._original.definition is None and not self._context.is_session:
                self._fail("expected updates inside of functions, found one in the main graph", node.name, target.name)
            after = self._rewritten.nodes[node.name]
            if len(data_inputs(after)) != len(data_inputs(node)):
                self._fail("expected the node to stay as it is, found another number of inputs", node.name, target.name)
            self.updates[node.name] = Update(after, write, known)
        elif node.op in READS and position == 0:
            dtype = node.attr["dtype"].type if "dtype" in node.attr else None
            if dtype != target.dtype:
                self._fail("expected the read to have the variable's dtype, found another", node.name, target.name)
            self.raws[(node.name, 0)] = RawRead(self._rewritten.nodes[node.name], target)
        elif (
            not self._context.is_call(node)
            and not self._context.switches(node, position)
            and (
                # A custom gradient may do anything with a handle. On a call the attribute names the call's own
                # gradient, which early TensorFlow 2 noted there and every loader makes anew.
                "_gradient_op_type" in node.attr or not (node.op in SAME or node.op in HARMLESS)
            )
        ):
            self._fail(
                f"expected the variable's handle to reach operations known to be safe only, found it in {node.op}",
                node.name,
                target.name,
            )

    def _takes_value(self, node: node_def_pb2.NodeDef, position: int, target: Target) -> bool:
        """What takes the value of a reference reads it; nothing else that is not a write may take it."""
        if takes_value(node, position):
            if target.slot_of is None and node.op == "Identity":
                self.raws[(node.name, 0)] = RawRead(self._rewritten.nodes[node.name], target)
            elif target.slot_of is None:
                self.values.add((node.name, position))
            return True
        write = write_of(node)
        if write is not None and write.applies and (self._taken(node.name) or node.name in self._context.initialising):
            self._fail("expected nothing to take what an update yields before it is put back", node.name, target.name)
        return node.op in REFERENCE_SAFE

    def _taken(self, name: str) -> bool:
        if self._sources is None:
            texts = [text for node in self._original.nodes.values() for text in data_inputs(node)]
            self._sources = {Tensor.parse(text).node for text in (*texts, *self._captured)}
        return name in self._sources

    def _find_added_reads(self) -> None:
        """Added nodes that read references, or what a read of one yields, for a single consumer."""
        found = {}
        for name, node in self._rewritten.nodes.items():
            if name in self._original.nodes or node.op != "Identity" or not self._context.references:
                continue
            taken = Tensor.parse(node.input[0])
            variable = self._context.variable_of(node.input[0]) if self._context.is_reference(node.input[0]) else None
            read = self.raws.get(taken.key)
            if variable is not None:
                found[(name, 0)] = RawRead(node, self._targets[variable], taken)
            elif read is not None and read.node.op == "Identity":
                found[(name, 0)] = RawRead(node, read.target, taken)
        self.raws |= found

    def _check_peephole(self, node: node_def_pb2.NodeDef) -> None:
        """A GatherV2 of rows that still takes the raw read: its output is what has to be masked."""
        raw = self.raws.get(Tensor.parse(node.input[0]).key)
        after = self._rewritten.nodes[node.name]
        if raw is None or raw.gathers or after.op != "GatherV2" or list(after.input[:1]) != list(node.input[:1]):
            return
        axis_node = self._original.nodes.get(Tensor.parse(node.input[2]).node)
        axis = None
        if axis_node is not None and axis_node.op == "Const" and "value" in axis_node.attr:
            axis = decode(axis_node.attr["value"].tensor)
        if axis is not None and axis.ndim == 0 and int(axis) == 0 and integer_attr(node, "batch_dims") == 0:
            self.gathered.add(node.name)
            self.raws[(node.name, 0)] = RawRead(after, raw.target)
