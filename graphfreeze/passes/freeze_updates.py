"""Masking the updates of one function: what writes a targeted variable, or an optimizer's slot of one.

A model with a training step of its own computed its gradients when it was traced: they know nothing of masked reads.
So each update is made to leave the frozen elements in storage as they are:

    AssignSub, AssignAdd, scatters that add   the delta becomes SelectV2(mask, delta, what changes nothing)
    Assign, scatters that overwrite           the value becomes SelectV2(mask, value, what is stored)
    optimizers' Apply operations              what was stored at the frozen elements is put back afterwards

The norm of a gradient by which the step clips does not count frozen elements either. What a direction is computed from,
as Muon's, is zero there: it becomes SelectV2(mask, input, 0) for all that take it but updates.

Scatters, and Apply operations of sparse gradients, take mask and stored values at their own indices. What waits for an
Apply operation waits for putting back, too:

    U/graphfreeze/before       ReadVariableOp, before U (of sparse gradients ResourceGather)
    U/graphfreeze/after        ReadVariableOp, after U
    U/graphfreeze/keep         SelectV2(mask, after, before)
    U/graphfreeze/restore      AssignVariableOp (of sparse gradients ResourceScatterUpdate)
    U/graphfreeze/done         NoOp, after all restores: takes the place of U in control inputs

Operations of TensorFlow 1 that take references have the same around them: DeepCopy (or GatherV2) reads what is stored,
and Assign (or ScatterUpdate) restores it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

from graphfreeze.passes.main_graph import FunctionLike
from graphfreeze.passes.masked_read import MaskedReadBuilder, scope
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.passes.zeroed import Zeroed
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.graph_flow import entered_by
from graphfreeze.savedmodel.handle_flow import Flow, UseKind
from graphfreeze.savedmodel.updates import Update, UpdateKind, update_of
from graphfreeze.selection.plan import FrozenVariable
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["mask_updates", "wait_for"]

# What takes a gradient for its norm takes zeros at frozen elements.
_NORM = Update(UpdateKind.DELTA, (), 0, neutral=0.0)


def mask_updates(
    function: FunctionLike,
    body: Body,
    flow: Flow,
    masks: Mapping[int, FrozenVariable],
    dtypes: Mapping[int, str],
    zeroed: Zeroed,
    budget: SizeBudget,
) -> list[tuple[int, str, str]]:
    """Mask the updates of one function. Its reads are masked already.

    Args:
        function: The function to change; new nodes follow the old ones.
        body: The index of the function as it was.
        flow: Where handles go in it.
        masks: Object node -> the targeted variable whose mask holds: of a slot, that of its variable.
        dtypes: Object node -> dtype, of variables and slots.
        zeroed: What must be zero at frozen elements, for norms and directions.
        budget: What the graph may grow to.

    Returns:
        The object nodes of the masked variables and slots, each with the name and operation of the node that writes it.
    """
    nodes = sorted({use.node for use in flow.uses if use.kind is UseKind.WRITE and use.variable in masks})
    if not nodes and zeroed == Zeroed():
        return []
    builder = _Builder(function, budget)
    done: dict[str, str] = {}
    masked = []
    for i in nodes:
        node = function.node_def[i]
        update = update_of(node)
        assert update is not None, "checked before anything is changed"
        builder.entered_by = entered_by(body, body.tensor(body.nodes[i].input[update.handles[0]]))
        variables = [flow.handles[body.tensor(body.nodes[i].input[position])] for position in update.handles]
        if update.kind is UpdateKind.APPLY:
            done[node.name] = builder.restore_after(node, update, [(masks[v], dtypes[v]) for v in variables])
        else:
            builder.mask_value(node, update, masks[variables[0]], dtypes[variables[0]])
        masked += [(variable, node.name, node.op) for variable in variables]
    builder.entered_by = None
    for i, norm in zeroed.norms.items():
        node = function.node_def[i]
        builder.mask_value(node, _NORM, masks[norm.variable], dtypes[norm.variable], norm.rows)
        masked.append((norm.variable, node.name, node.op))
    for tensor, direction in zeroed.directions.items():
        builder.mask_input(body, tensor, masks[direction.variable], tf.as_dtype(direction.dtype).name)
        node = function.node_def[body.positions[tensor.split(":", 1)[0]]]
        masked.append((direction.variable, node.name, node.op))
    wait_for(function, done, builder.direct)
    return masked


def wait_for(function: FunctionLike, done: Mapping[str, str], direct: Container[str]) -> None:
    """Let all that waits for a node wait for another one instead, less the nodes in between.

    Args:
        function: The function to change.
        done: The node -> the one that takes its place.
        direct: The nodes in between.
    """
    if not done:
        return
    for node in function.node_def:
        if node.name not in direct:
            for k, reference in enumerate(node.input):
                if reference.startswith("^") and reference[1:] in done:
                    node.input[k] = f"^{done[reference[1:]]}"
    # A copy: setting what is being iterated over may skip others.
    for key, name in list(function.control_ret.items()):
        if name in done:
            function.control_ret[key] = done[name]


class _Builder(MaskedReadBuilder):
    """Adds the nodes of masked updates to one function."""

    def __init__(self, function: FunctionLike, budget: SizeBudget) -> None:
        super().__init__(function, budget)
        self.direct: set[str] = set()
        """The nodes that wait for an update itself, not for what is put back after it."""

    def mask_value(
        self,
        node: node_def_pb2.NodeDef,
        update: Update,
        frozen: FrozenVariable,
        dtype: str,
        rows: tuple[str, int] | None = None,
    ) -> None:
        """Keep the frozen elements out of what a node writes, at the update's own indices or at given ones."""
        mask = self._update_mask(node, update, frozen, rows)
        if update.neutral is None:
            kept = self._stored(node, update, 0, "before", dtype, _controls(node))
        else:
            kept = self._neutral(update.neutral, dtype, node.device)
        inputs = [mask, node.input[update.value], kept]
        node.input[update.value] = self._select(f"{node.name}/graphfreeze/keep", inputs, node.device, dtype)

    def mask_input(self, body: Body, tensor: str, frozen: FrozenVariable, dtype: str) -> None:
        """Let all that takes a tensor take zeros for its frozen elements, but for what writes it into a variable."""
        node = self._function.node_def[body.positions[tensor.split(":", 1)[0]]]
        takers = [t for t in body.consumers[tensor] if update_of(body.nodes[t.node]) is None]
        reference = body.nodes[takers[0].node].input[takers[0].input]
        inputs = [self._bools(frozen, frozen.mask, node.device), reference, self._neutral(0.0, dtype, node.device)]
        masked = self._select(f"{node.name}/graphfreeze/keep", inputs, node.device, dtype)
        for i, k in takers:
            self._function.node_def[i].input[k] = masked

    def restore_after(
        self, node: node_def_pb2.NodeDef, update: Update, variables: list[tuple[FrozenVariable, str]]
    ) -> str:
        """Put back what was stored at the frozen elements of all variables that a node writes.

        Returns:
            The name of the node after which that is done.
        """
        controls, name, restores = _controls(node), f"{node.name}/graphfreeze", []
        for handle, (frozen, dtype) in zip(update.handles, variables, strict=True):
            mask = self._update_mask(node, update, frozen)
            before = self._stored(node, update, handle, "before", dtype, controls)
            node.input.append(f"^{before.split(':', 1)[0]}")
            after = self._stored(node, update, handle, "after", dtype, [f"^{node.name}"])
            self.direct.add(after.split(":", 1)[0])
            kept = self._select(f"{name}/keep", [mask, after, before], node.device, dtype)
            inputs = [node.input[handle], kept]
            types = {"T" if update.is_reference else "dtype": _enum(dtype)}
            operation = "Assign" if update.is_reference else "AssignVariableOp"
            if update.indices is not None:
                inputs.insert(1, node.input[update.indices])
                types["Tindices"] = node.attr["Tindices"].type
                operation = "ScatterUpdate" if update.is_reference else "ResourceScatterUpdate"
            restores.append(self._add(operation, f"{name}/restore", inputs, node.device, "", **types))
        waits = [f"^{tensor.split(':', 1)[0]}" for tensor in restores]
        return self._add("NoOp", f"{name}/done", waits, node.device, "").split(":", 1)[0]

    def _update_mask(
        self,
        node: node_def_pb2.NodeDef,
        update: Update,
        frozen: FrozenVariable,
        rows: tuple[str, int] | None = None,
    ) -> str:
        """The mask, true where trainable, in a shape that broadcasts to what is written."""
        if update.indices is not None:
            rows = node.input[update.indices], node.attr["Tindices"].type
        if rows is None:
            return self._bools(frozen, frozen.mask, node.device)
        if frozen.mask.size == 1:
            return self._bools(frozen, frozen.mask.reshape(()), node.device)
        indices, dtype = rows
        types = {"Tparams": int(tf.bool.as_datatype_enum), "Tindices": dtype}
        name = f"{node.name}/graphfreeze/mask"
        if update.kind is UpdateKind.ELEMENTS:
            inputs = [self._bools(frozen, frozen.full_mask, node.device), indices]
            return self._add("GatherNd", name, inputs, node.device, "output", **types)
        if frozen.mask.shape[0] == 1:
            return self._bools(frozen, frozen.mask[0], node.device)
        inputs = [self._bools(frozen, frozen.mask, node.device), indices, self._first_axis(node.device)]
        types["Taxis"] = int(tf.int32.as_datatype_enum)
        return self._add("GatherV2", name, inputs, node.device, "output", **types)

    def _neutral(self, value: float, dtype: str, device: str) -> str:
        number = np.array(value).astype(numpy_dtype(dtype))
        key = ("neutral", dtype, number.tobytes(), device)
        if key not in self._made:
            self._made[key] = self._const("graphfreeze/unchanged", number, dtype, device)
        return self._made[key]

    def _first_axis(self, device: str) -> str:
        key = ("axis", 0, device)
        if key not in self._made:
            self._made[key] = self._const("graphfreeze/axis", np.array(0, np.int32), "int32", device)
        return self._made[key]

    def _bools(self, frozen: FrozenVariable, mask: npt.NDArray[np.bool_], device: str) -> str:
        key = ("update mask", frozen.variable.object_path, mask.shape, device)
        if key not in self._made:
            self._made[key] = self._const(f"{scope(frozen)}/update_mask", mask, "bool", device)
        return self._made[key]

    def _stored(
        self, node: node_def_pb2.NodeDef, update: Update, handle: int, name: str, dtype: str, controls: list[str]
    ) -> str:
        """What is stored where a node writes, read when the control inputs are done."""
        if update.is_reference:
            return self._stored_behind(node, update, handle, name, dtype, controls)
        operation, output, inputs = "ReadVariableOp", "value", [node.input[handle]]
        types: dict[str, Any] = {"dtype": _enum(dtype)}
        if update.indices is not None:
            operation = "ResourceGatherNd" if update.kind is UpdateKind.ELEMENTS else "ResourceGather"
            output = "output"
            inputs.append(node.input[update.indices])
            types["Tindices"] = node.attr["Tindices"].type
        return self._add(
            operation, f"{node.name}/graphfreeze/{name}", [*inputs, *controls], node.device, output, **types
        )

    def _stored_behind(
        self, node: node_def_pb2.NodeDef, update: Update, handle: int, name: str, dtype: str, controls: list[str]
    ) -> str:
        """The same of a reference. An Identity would be the variable's own memory, which the update changes."""
        operation, inputs, types = "DeepCopy", [node.input[handle]], {"T": _enum(dtype)}
        if update.indices is not None:
            inputs.append(node.input[update.indices])
            types = {"Tparams": _enum(dtype), "Tindices": node.attr["Tindices"].type}
            operation = "GatherNd" if update.kind is UpdateKind.ELEMENTS else "GatherV2"
        if operation == "GatherV2":
            inputs.append(self._first_axis(node.device))
            types["Taxis"] = int(tf.int32.as_datatype_enum)
        return self._add(
            operation, f"{node.name}/graphfreeze/{name}", [*inputs, *controls], node.device, "output", **types
        )

    def _select(self, name: str, inputs: list[str], device: str, dtype: str) -> str:
        return self._add("SelectV2", name, inputs, device, "output", T=_enum(dtype))


def _controls(node: node_def_pb2.NodeDef) -> list[str]:
    return [reference for reference in node.input if reference.startswith("^")]


def _enum(dtype: str) -> int:
    return int(tf.as_dtype(dtype).as_datatype_enum)
