"""The nodes that mask updates, each by itself: masks, other constants, and that no node does more than it seems to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from tensorflow.core.framework import node_def_pb2, types_pb2

from graphfreeze.prover.constants import Array, broadcasts, decode, differing_elements
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.frames import source_of
from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs, entered_by
from graphfreeze.prover.masked_read import MaskedReads
from graphfreeze.prover.messages import dtype_name
from graphfreeze.prover.targets import NUMPY_NAMES, Target
from graphfreeze.prover.writes import Write, write_of
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["Update", "UpdateNodes"]


@dataclass(frozen=True)
class Update:
    """A node of the original that writes.

    Attributes:
        node: The node in the rewritten model.
        write: How it writes.
        targets: What its handles carry, in their order.
        rows: The indices, in the original, of the rows that it takes without an input that says so, as norms do.
    """

    node: node_def_pb2.NodeDef
    write: Write
    targets: tuple[Target, ...]
    rows: Tensor | None = None

    @property
    def in_part(self) -> bool:
        """Whether it takes only a part of the variable, at some indices."""
        return self.write.indices is not None or self.rows is not None


class UpdateNodes:
    """The nodes of one function body that mask its updates.

    Args:
        original: The body in the original model.
        rewritten: The body in the rewritten model.
        reads: The masked reads; the nodes that belong to updates are accounted for there.
    """

    def __init__(self, original: GraphView, rewritten: GraphView, reads: MaskedReads) -> None:
        self._original = original
        self._view = rewritten
        self._reads = reads
        self._devices = {node.device for node in original.nodes.values()} | {""}

    def prove_mask(self, text: str, target: Target, update: Update) -> None:
        """The plan's mask as bools, gathered where the update writes if it differs there."""
        write = update.write
        mask = self._view.nodes.get(Tensor.parse(text).node)
        gather: node_def_pb2.NodeDef | None = None
        expected = "GatherNd" if write.by_element else "GatherV2"
        if update.in_part and mask is not None and mask.op == expected and mask.name in self._reads.added:
            gather = mask
            self.check_output(text, "output", update)
            self._prove_gather(gather, update, target)
            text = gather.input[0]
        array = self._constant(text, types_pb2.DT_BOOL, update, target)
        shape = target.shape
        fits = broadcasts(array.shape, shape)
        if gather is not None:
            indexed = len(shape) if write.by_element else 1
            fits = fits and array.ndim == len(shape) and array.shape[:indexed] == shape[:indexed]
        elif update.in_part:
            fits = fits and array.ndim <= (0 if write.by_element else len(shape) - 1)
        if not fits:
            self.fail(f"expected a mask for {shape} at the update's place, found shape {array.shape}", update, target)
        # By their bits: a byte of 3 is a true one to numpy, but not to every kernel.
        different = differing_elements(np.broadcast_to(array, shape), target.frozen.full_mask)
        if different.any():
            index = [int(i[0]) for i in np.nonzero(different)]
            self.fail(
                f"expected the plan's mask, found another one: {int(different.sum())} of {different.size} elements "
                f"differ, the first at {index}",
                update,
                target,
            )

    def _prove_gather(self, gather: node_def_pb2.NodeDef, update: Update, target: Target) -> None:
        indices, inputs = update.write.indices, 3 if gather.op == "GatherV2" else 2
        same = len(gather.input) == inputs
        if indices is not None:
            same = same and gather.input[1] == update.node.input[indices]
            types = self.indices_type(update)
        else:
            # Any copy will do: the update itself takes none.
            same = same and source_of(self._original, gather.input[1]) == update.rows
            types = {"Tindices": _integers_of(self._original, gather.input[1])} if same else {}
        if not same:
            self.fail("expected the mask to be gathered with the update's indices, found other ones", update, target)
        types["Tparams"] = types_pb2.DT_BOOL
        if gather.op == "GatherV2":
            self.prove_axis(gather, update, target)
            types["Taxis"] = types_pb2.DT_INT32
        self.plain(gather, types, update)

    def prove_axis(self, gather: node_def_pb2.NodeDef, update: Update, target: Target) -> None:
        """Prove that a node gathers along axis 0."""
        if len(data_inputs(gather)) != 3:
            self.fail("expected a gather along an axis, found other inputs", update, target)
        axis = self._constant(gather.input[2], types_pb2.DT_INT32, update, target)
        if axis.ndim or int(axis):
            self.fail("expected rows to be gathered along axis 0, found another one", update, target)

    def prove_unchanged(
        self, text: str, target: Target, update: Update, number: float, dtype: int | None = None
    ) -> None:
        """Prove that a tensor is the number that writes nothing new, in the variable's dtype or in another."""
        dtype = target.dtype if dtype is None else dtype
        found = self._constant(text, dtype, update, target)
        expected = np.array(number).astype(numpy_dtype(NUMPY_NAMES[dtype]))
        if found.shape != () or found.tobytes() != expected.tobytes():
            self.fail(f"expected {expected} to be written at frozen elements, found {found}", update, target)

    def _constant(self, text: str, dtype: int, update: Update, target: Target) -> Array:
        node = self.added(text, "Const", "output", update)
        if node is None:
            self.fail(f"expected a constant of its own in the masked update, found {text!r}", update, target)
        self.plain(node, {"dtype": dtype}, update)
        array = decode(node.attr["value"].tensor) if "value" in node.attr else None
        if array is None or node.attr["value"].tensor.dtype != dtype:
            self.fail(f"expected a constant of dtype {dtype_name(dtype)}, found none", update, target)
        return array

    def added(self, text: str, operation: str, output: str, update: Update) -> node_def_pb2.NodeDef | None:
        """The added node that makes a tensor; None where no added one with that operation does."""
        node = self._view.nodes.get(Tensor.parse(text).node)
        if node is None or node.name not in self._reads.added or node.op != operation:
            return None
        self.check_output(text, output, update)
        return node

    def check_output(self, text: str, output: str, update: Update) -> None:
        """Prove that a tensor is the only output of its node, by that name."""
        tensor = Tensor.parse(text)
        if tensor.position != 0 or tensor.output != self.named(output):
            self.fail(f"expected the output {output!r} of {tensor.node!r}, found {text!r}", update)

    def named(self, output: str) -> str:
        """How a tensor names an output: in the main graph, not at all."""
        return output if self._view.definition is not None else ""

    def indices_type(self, update: Update) -> dict[str, int]:
        """The dtype of an update's own indices, as an attribute."""
        if update.write.indices is None:
            return {}
        node = update.node
        return {"Tindices": node.attr["Tindices"].type if "Tindices" in node.attr else types_pb2.DT_INVALID}

    def plain(
        self, node: node_def_pb2.NodeDef, types: Mapping[str, int], update: Update, *, controls: bool = False
    ) -> None:
        """Prove that an added node holds nothing but its operation, inputs, these dtypes, and a constant's value."""
        self._reads.accounted.add(node.name)
        free = {"value"} if node.op == "Const" else set()
        found = {name: node.attr[name].type for name in node.attr if name not in free}
        if found != dict(types) or any(node.attr[name].WhichOneof("value") != "type" for name in found):
            self.fail(f"expected {node.op} with {dict(types)}, found {found} in {node.name!r}", update)
        extra = {field.name for field, _ in node.ListFields()} - {"name", "op", "input", "device", "attr"}
        inputs = list(node.input)
        if node.op == "Const" and update.write.handles:
            frame = entered_by(self._view, update.node.input[update.write.handles[0]])
            inputs = [text for text in inputs if text != f"^{frame}"]
        waits = not controls and any(text.startswith("^") for text in inputs)
        if extra or waits or node.device not in self._devices or (node.op == "Const" and inputs):
            self.fail(f"expected a plain {node.op}, found control inputs, another device or more", update)

    def fail(self, message: str, update: Update, target: Target | None = None) -> NoReturn:
        """Refuse the update."""
        variable = (target or update.targets[0]).name
        refuse(message, variable=variable, function=self._view.name, node=update.node.name)


def _integers_of(view: GraphView, text: str) -> int:
    """The dtype of row indices, or of a copy of them: by the node that makes the copy, or by one that takes them."""
    tensor = Tensor.parse(text)
    node = view.nodes.get(tensor.node)
    dtypes = [] if node is None else [_dtype(node, {"Identity": "T", "Cast": "DstT"}.get(node.op, ""))]
    for taker, position in view.takers.get(tensor.node, ()):
        write = write_of(taker)
        taken = 1 if taker.op == "UnsortedSegmentSum" else None if write is None else write.indices
        if Tensor.parse(data_inputs(taker)[position]) == tensor and position == taken:
            dtypes.append(_dtype(taker, "Tindices"))
        elif Tensor.parse(data_inputs(taker)[position]) == tensor and position == 0:
            dtypes.append(_dtype(taker, {"Identity": "T", "Unique": "T", "Cast": "SrcT"}.get(taker.op, "")))
    known = set(dtypes) & {types_pb2.DT_INT32, types_pb2.DT_INT64}
    return known.pop() if len(known) == 1 else types_pb2.DT_INVALID


def _dtype(node: node_def_pb2.NodeDef, name: str) -> int:
    return int(node.attr[name].type) if name in node.attr else types_pb2.DT_INVALID
