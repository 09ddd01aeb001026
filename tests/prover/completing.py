"""Masks that a rewritten model may lack, added by hand: what the prover asks for can so be tried on any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2

from graphfreeze.prover.files import read_saved_model
from graphfreeze.prover.influence import Zeroed
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of
from graphfreeze.selection.plan import FreezePlan
from tests.prover.finding import slots_in
from tests.prover.rewriting import rewrite

__all__ = ["completed"]


class Body:
    """A function of the rewritten model, beside what it was.

    Args:
        function: The function.
        original: The same in the original model.
    """

    def __init__(self, function: function_pb2.FunctionDef, original: function_pb2.FunctionDef) -> None:
        self.function = function
        self.original = {node.name: node for node in original.node_def}
        self.nodes = {node.name: node for node in function.node_def}

    def is_masked(self, node: node_def_pb2.NodeDef, position: int) -> bool:
        """Whether the rewrite already changed what a node takes."""
        return bool(node.input[position] != self.original[node.name].input[position])

    def constant(self, name: str, value: npt.NDArray[np.generic] | float, dtype: int) -> str:
        """Add a constant; returns its tensor."""
        node = self.function.node_def.add(name=name, op="Const")
        node.attr["dtype"].type = dtype
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
        self.nodes[name] = node
        return f"{name}:output:0"

    def select(self, name: str, target: Target, value: str, other: str, dtype: int) -> str:
        """Add a SelectV2 by the mask of a variable; returns its tensor."""
        mask = self.constant(f"{name}/mask", target.frozen.full_mask, tf.bool.as_datatype_enum)
        node = self.function.node_def.add(name=name, op="SelectV2", input=[mask, value, other])
        node.attr["T"].type = dtype
        self.nodes[name] = node
        return f"{name}:output:0"

    def stored(self, name: str, update: node_def_pb2.NodeDef, dtype: int) -> str:
        """Add a read of what an update overwrites; returns its tensor."""
        waits = [text for text in update.input if text.startswith("^")]
        node = self.function.node_def.add(name=name, op="ReadVariableOp", input=[update.input[0], *waits])
        node.attr["dtype"].type = dtype
        self.nodes[name] = node
        return f"{name}:value:0"


def completed(original: Path, rewritten: Path, plan: FreezePlan, *, shared: bool = True) -> None:
    """Rewrite a model, and add all masks that are missing.

    Args:
        original: The model.
        rewritten: Where the rewritten one is written.
        plan: What is frozen.
        shared: Whether all nodes with which a direction begins take the same masked tensor; or each one of its own.
    """
    rewrite(original, rewritten, plan)
    before, after = read_saved_model(original, original=True), read_saved_model(rewritten, original=False)
    found = slots_in(original, plan)
    bodies = {f.signature.name: f for f in before.meta_graphs[0].graph_def.library.function}
    for function in after.meta_graphs[0].graph_def.library.function:
        for (name, binding), zeroed in found.zeroed.items():
            if name == function.signature.name:
                body = Body(function, bodies[name])
                _zero(body, zeroed, shared)
                _hold(body, {function.signature.input_arg[k].name: v for k, v in binding}, found.slots)
    (rewritten / "saved_model.pb").write_bytes(after.SerializeToString(deterministic=True))


def _zero(body: Body, zeroed: Zeroed, shared: bool) -> None:
    for name, norm in zeroed.norms.items():
        node = body.nodes[name]
        if not body.is_masked(node, 0):
            assert norm.rows is None
            zero = body.constant(f"{name}/zero", 0.0, norm.target.dtype)
            node.input[0] = body.select(f"{name}/keep", norm.target, node.input[0], zero, norm.target.dtype)
    for (name, position), (target, dtype) in zeroed.beginnings.items():
        kept = ""
        for node in body.original.values():
            for k, text in enumerate(node.input):
                write = write_of(node)
                written = write is not None and k == write.value
                is_input = text.split(":")[0] == name and int(text.split(":")[-1]) == position
                if not is_input or written or body.is_masked(body.nodes[node.name], k):
                    continue
                if not kept or not shared:
                    at = f"{node.name}/{k}"
                    zero = body.constant(f"{at}/zero", 0.0, dtype)
                    kept = body.select(f"{at}/keep", target, text, zero, dtype)
                body.nodes[node.name].input[k] = kept


def _hold(body: Body, arguments: dict[str, int], slots: dict[int, Target]) -> None:
    """Mask the updates of slots."""
    for node in body.original.values():
        write, slot = write_of(node), slots.get(arguments.get(node.input[0], -1)) if node.input else None
        after = body.nodes[node.name]
        if write is None or slot is None or body.is_masked(after, write.value):
            continue
        value, name = after.input[write.value], f"{node.name}/keep"
        if write.unchanged is None:
            other = body.stored(f"{node.name}/stored", after, slot.dtype)
        else:
            other = body.constant(f"{node.name}/unchanged", write.unchanged, slot.dtype)
        after.input[write.value] = body.select(name, slot, value, other, slot.dtype)
