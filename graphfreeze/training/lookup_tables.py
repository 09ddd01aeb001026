"""Lookup tables of numbers become constants: what a table holds when the model is loaded, it holds in every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.graph import Edge, Graph
from graphfreeze.training.operations import add_constant, add_operation

__all__ = ["Resource", "use_resource"]

_SPARSEST = 16
"""A table becomes an array of all numbers between its keys where these are at most this many times as many."""


@dataclass(frozen=True, eq=False, slots=True)
class Resource:
    """A captured resource that is no variable.

    Attributes:
        handle: The eager tensor of its handle.
        name: What the function calls it.
    """

    handle: Any
    name: str


def use_resource(graph: Graph, node: Any, resource: Resource, inputs: list[Edge]) -> list[Edge]:
    """What an operation on a table gives, in operations on constants.

    Args:
        graph: Where to put them.
        node: The NodeDef.
        resource: Its first input.
        inputs: Its other inputs.

    Raises:
        UnsupportedError: The resource is no table, the table does not map numbers to numbers, or the operation changes
            it.
    """
    use = _USES.get(node.op)
    if use is None:
        raise UnsupportedError(
            f"the operation {node.op} ({node.name!r}) uses the resource {resource.name!r}, which is no variable (a "
            "table that grows, an iterator): variables, and lookup tables that are only read "
            f"({', '.join(sorted(_USES))}), can be in an ONNX graph; choose an endpoint without it"
        )
    return use(_Lookup(graph, node), resource, inputs)


class _Lookup:
    """Makes the operations that stand for one operation on a table."""

    def __init__(self, graph: Graph, node: Any) -> None:
        self.graph = graph
        self.node = node

    def emit(self, op_type: str, inputs: list[Edge], **types: Any) -> Edge:
        """Append an operation."""
        attributes = {n: attr_value_pb2.AttrValue(type=tf.as_dtype(d).as_datatype_enum) for n, d in types.items()}
        return add_operation(self.graph, op_type, f"{self.node.name}/{op_type}", inputs, attributes)[0]

    def number(self, value: npt.ArrayLike) -> Edge:
        """Append a Const."""
        return add_constant(self.graph, np.asarray(value), f"{self.node.name}/table")


def _find(lookup: _Lookup, resource: Resource, inputs: list[Edge]) -> list[Edge]:
    sought, default = inputs
    keys, values = _contents(lookup.node, resource)
    if not len(keys):
        shape = lookup.emit("Shape", [sought], T=sought.dtype, out_type=tf.int32)
        return [lookup.emit("BroadcastTo", [default, shape], T=default.dtype, Tidx=tf.int32)]
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    is_whole = keys.dtype.kind in "iu" and int(keys[-1]) - int(keys[0]) < _SPARSEST * len(keys)
    place, found = (_in_array if is_whole else _by_search)(lookup, sought, keys)
    if is_whole:
        dense = np.zeros((int(keys[-1]) - int(keys[0]) + 1, *values.shape[1:]), values.dtype)
        dense[keys - keys[0]] = values
        values = dense
    axis = lookup.number(np.int32(0))
    types = {"Tparams": default.dtype, "Tindices": tf.int32, "Taxis": tf.int32}
    taken = lookup.emit("GatherV2", [lookup.number(values), place, axis], **types)
    return [lookup.emit("SelectV2", [found, taken, default], T=default.dtype)]


def _in_array(lookup: _Lookup, sought: Edge, keys: npt.NDArray[Any]) -> tuple[Edge, Edge]:
    """Where each number is in an array of all numbers from the first key to the last, and whether it is a key."""
    dtype = sought.dtype
    first, last = (lookup.number(key) for key in (keys[0], keys[-1]))
    low = lookup.emit("Maximum", [sought, first], T=dtype)
    bounded = lookup.emit("Minimum", [low, last], T=dtype)
    place = lookup.emit("Sub", [bounded, first], T=dtype)
    if dtype != tf.int32:
        place = lookup.emit("Cast", [place], SrcT=dtype, DstT=tf.int32)
    found = lookup.emit("Equal", [bounded, sought], T=dtype)
    is_key = np.zeros(int(keys[-1]) - int(keys[0]) + 1, np.bool_)
    is_key[keys - keys[0]] = True
    if not is_key.all():
        types = {"Tparams": tf.bool, "Tindices": tf.int32, "Taxis": tf.int32}
        there = lookup.emit("GatherV2", [lookup.number(is_key), place, lookup.number(np.int32(0))], **types)
        found = lookup.emit("LogicalAnd", [found, there])
    return place, found


def _by_search(lookup: _Lookup, sought: Edge, keys: npt.NDArray[Any]) -> tuple[Edge, Edge]:
    """Where each number is among the sorted keys, and whether it is one of them."""
    shape = lookup.emit("Shape", [sought], T=sought.dtype, out_type=tf.int32)
    flat = lookup.emit("Reshape", [sought, lookup.number(np.array([1, -1], np.int32))], T=sought.dtype, Tshape=tf.int32)
    before = lookup.emit("LowerBound", [lookup.number(keys[None]), flat], T=sought.dtype, out_type=tf.int32)
    last = lookup.number(np.int32(len(keys) - 1))
    place = lookup.emit("Minimum", [before, last], T=tf.int32)
    place = lookup.emit("Reshape", [place, shape], T=tf.int32, Tshape=tf.int32)
    types = {"Tparams": sought.dtype, "Tindices": tf.int32, "Taxis": tf.int32}
    there = lookup.emit("GatherV2", [lookup.number(keys), place, lookup.number(np.int32(0))], **types)
    return place, lookup.emit("Equal", [there, sought], T=sought.dtype)


def _size(lookup: _Lookup, resource: Resource, inputs: list[Edge]) -> list[Edge]:
    found = tf.raw_ops.LookupTableSizeV2(table_handle=resource.handle)
    return [lookup.number(np.int64(found.numpy()))]


def _contents(node: Any, resource: Resource) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    dtypes = [tf.as_dtype(node.attr[name].type) for name in ("Tin", "Tout")]
    if any(not (dtype.is_integer or dtype.is_floating) for dtype in dtypes):
        names = " to ".join(dtype.name for dtype in dtypes)
        raise UnsupportedError(
            f"the lookup table {resource.name!r} ({node.name!r}) maps {names}: ONNX has no strings to look up in a "
            "training step; tables of numbers are covered. Look these up before the step, or choose an endpoint "
            "without the table"
        )
    try:
        keys, values = tf.raw_ops.LookupTableExportV2(table_handle=resource.handle, Tkeys=dtypes[0], Tvalues=dtypes[1])
    except tf.errors.OpError as error:
        raise UnsupportedError(f"the lookup table {resource.name!r} cannot be read: {error.message}") from error
    if keys.shape.rank != 1:
        # A DenseHashTable exports its buckets, the empty ones too.
        raise UnsupportedError(
            f"the lookup table {resource.name!r} ({node.name!r}) yields keys of shape {tuple(keys.shape)}, as a dense "
            "hash table does, where one key after the other was expected: look these up before the step, or choose an "
            "endpoint without the table"
        )
    return keys.numpy(), values.numpy()


_USES: dict[str, Callable[[_Lookup, Resource, list[Edge]], list[Edge]]] = {
    "LookupTableFindV2": _find,
    "LookupTableSizeV2": _size,
}
