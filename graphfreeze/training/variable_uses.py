"""What the operations on variables mean for the values that the variables hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.training.graph import Edge, Graph
from graphfreeze.training.lookup_tables import Resource
from graphfreeze.training.operations import add_constant, add_operation

__all__ = ["VARIABLE_USES", "Handle", "Item", "VariableSlot", "VariableState", "VariableUse"]


@dataclass(frozen=True, slots=True)
class VariableSlot:
    """A variable of the traced function: the name it gets in the functional graph, its dtype and shape."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Handle:
    """A resource handle: which variable it stands for."""

    slot: VariableSlot


Item = Edge | Handle | Resource
"""What an input of a node is: a tensor, a variable's handle, or another resource."""


@dataclass(slots=True)
class VariableState:
    """What each variable holds at this point of one graph. A variable met for the first time becomes an input."""

    inputs: dict[VariableSlot, Edge] = field(default_factory=dict)
    values: dict[VariableSlot, Edge] = field(default_factory=dict)
    written: dict[VariableSlot, None] = field(default_factory=dict)

    def read(self, slot: VariableSlot) -> Edge:
        """What the variable holds now."""
        if slot not in self.values:
            self.values[slot] = self.inputs[slot] = Edge(slot.name, slot.dtype, slot.shape)
        return self.values[slot]

    def write(self, slot: VariableSlot, value: Edge) -> None:
        """Let the variable hold something else from here on."""
        self.read(slot)
        self.values[slot] = value
        self.written[slot] = None


@dataclass(slots=True)
class VariableUse:
    """One operation on a variable's handle.

    Attributes:
        graph: Where to put what it means for the value.
        node: The NodeDef.
        handle: Its first input.
        inputs: Its other inputs.
        state: The variables' values at this point.
    """

    graph: Graph
    node: Any
    handle: Handle
    inputs: list[Edge]
    state: VariableState

    @property
    def value(self) -> Edge:
        """What the variable holds."""
        return self.state.read(self.handle.slot)

    def emit(self, op_type: str, inputs: list[Edge], **types: Any) -> Edge:
        """Append an operation with these type attributes."""
        attributes = {
            name: attr_value_pb2.AttrValue(type=tf.as_dtype(dtype).as_datatype_enum) for name, dtype in types.items()
        }
        return add_operation(self.graph, op_type, self.node.name, inputs, attributes)[0]

    def number(self, value: Any, suffix: str) -> Edge:
        """Append a Const."""
        return add_constant(self.graph, value, f"{self.node.name}/{suffix}")


def _read(use: VariableUse) -> list[Item]:
    return [use.value]


def _pass_handle(use: VariableUse) -> list[Item]:
    return [use.handle]


def _assign(use: VariableUse) -> list[Item]:
    use.state.write(use.handle.slot, use.inputs[0])
    return []


def _assign_by(op_type: str) -> Callable[[VariableUse], list[Item]]:
    def apply(use: VariableUse) -> list[Item]:
        new = use.emit(op_type, [use.value, use.inputs[0]], T=use.handle.slot.dtype)
        use.state.write(use.handle.slot, new)
        return []

    return apply


def _gather(use: VariableUse) -> list[Item]:
    indices = use.inputs[0]
    batch_dims = use.node.attr["batch_dims"].i if "batch_dims" in use.node.attr else 0
    axis = use.number(np.int32(batch_dims), "axis")
    types = {"Tparams": use.handle.slot.dtype, "Tindices": indices.dtype, "Taxis": tf.int32}
    edge = use.emit("GatherV2", [use.value, indices, axis], **types)
    if batch_dims:
        assert edge.producer is not None
        edge.producer.attributes["batch_dims"] = attr_value_pb2.AttrValue(i=batch_dims)
    return [edge]


def _gather_nd(use: VariableUse) -> list[Item]:
    types = {"Tparams": use.handle.slot.dtype, "Tindices": use.inputs[0].dtype}
    return [use.emit("GatherNd", [use.value, use.inputs[0]], **types)]


def _scatter(op_type: str) -> Callable[[VariableUse], list[Item]]:
    def apply(use: VariableUse) -> list[Item]:
        indices, updates = use.inputs
        last = use.number(np.int32(-1), "axis")
        rows = use.emit("ExpandDims", [indices, last], T=indices.dtype, Tdim=tf.int32)
        new = use.emit(op_type, [use.value, rows, updates], T=use.handle.slot.dtype, Tindices=indices.dtype)
        use.state.write(use.handle.slot, new)
        return []

    return apply


def _shape(use: VariableUse) -> list[Item]:
    dtype = tf.as_dtype(use.node.attr["out_type"].type) if "out_type" in use.node.attr else tf.int32
    return [use.number(np.array(use.handle.slot.shape, dtype.as_numpy_dtype), "shape")]


def _read_and_skip(use: VariableUse) -> list[Item]:
    """Of a `tf.random.Generator`: its counter (128 bits, lower half first) and key, and the counter moves on.

    The upper half of the counter stays: the lower one overflows once in 2**64 draws.
    """
    before, delta = use.value, use.inputs[1]
    signed = use.emit("Cast", [delta], SrcT=delta.dtype, DstT=tf.int64)
    skipped = use.emit("Mul", [use.number(np.array([256, 0, 0], np.int64), "skip"), signed], T=tf.int64)
    use.state.write(use.handle.slot, use.emit("AddV2", [before, skipped], T=tf.int64))
    return [before]


def _is_initialized(use: VariableUse) -> list[Item]:
    return [use.number(np.bool_(True), "initialized")]


VARIABLE_USES: dict[str, Callable[[VariableUse], list[Item]]] = {
    "AssignAddVariableOp": _assign_by("AddV2"),
    "AssignSubVariableOp": _assign_by("Sub"),
    "AssignVariableOp": _assign,
    "Identity": _pass_handle,
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "ResourceScatterAdd": _scatter("TensorScatterAdd"),
    "ResourceScatterSub": _scatter("TensorScatterSub"),
    "ResourceScatterUpdate": _scatter("TensorScatterUpdate"),
    "RngReadAndSkip": _read_and_skip,
    "VarIsInitializedOp": _is_initialized,
    "VariableShape": _shape,
}
"""What each operation on a handle means for the variable\'s value: its outputs, and perhaps a new value."""
