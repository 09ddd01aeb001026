"""New operations for a functional graph, each right behind what it needs, so that no tensor lives longer for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import tensor_util

from graphfreeze.training.graph import Edge, Graph, Operation
from graphfreeze.training.operations import add_constant, add_operation

__all__ = ["Insertions", "constant_of"]


class Insertions:
    """Operations that will stand at some places of one graph: first, before or behind one, or last.

    Args:
        graph: The graph, unchanged until `finish`.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._first = Graph()
        self._before: dict[int, Graph] = {}
        self._behind: dict[int, Graph] = {}
        self._last = Graph()

    def first(self) -> Place:
        """Before all operations."""
        return Place(self._first)

    def last(self) -> Place:
        """Behind all operations."""
        return Place(self._last)

    def before(self, operation: Operation) -> Place:
        """Right before an operation."""
        return Place(self._before.setdefault(id(operation), Graph()))

    def behind(self, operation: Operation) -> Place:
        """Right behind an operation."""
        return Place(self._behind.setdefault(id(operation), Graph()))

    def finish(self) -> None:
        """Put the new operations into the graph."""
        operations: list[Operation] = []
        for operation in [*self._first.operations, *self._graph.operations, *self._last.operations]:
            self._put(operation, operations)
        self._graph.operations = operations

    def _put(self, operation: Operation, operations: list[Operation]) -> None:
        for other in self._before[id(operation)].operations if id(operation) in self._before else ():
            self._put(other, operations)
        operations.append(operation)
        for other in self._behind[id(operation)].operations if id(operation) in self._behind else ():
            self._put(other, operations)


class Place:
    """Where new operations go, and the few kinds of them that are needed. Shapes are carried along.

    Args:
        graph: Collects them.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def constant(self, array: npt.ArrayLike, name: str) -> Edge:
        """A Const."""
        array = np.asarray(array)
        edge = add_constant(self._graph, array, name)
        edge.shape = array.shape
        return edge

    def emit(
        self, kind: str, name: str, inputs: list[Edge], shape: tuple[int | None, ...] | None, **attributes: Any
    ) -> Edge:
        """An operation with one output; an attribute is a dtype, an integer or an AttrValue."""
        made = {key: _attribute(value) for key, value in attributes.items()}
        (edge,) = add_operation(self._graph, kind, name, inputs, made)
        edge.shape = shape
        return edge

    def again(self, operation: Operation, inputs: list[Edge], shape: tuple[int | None, ...] | None) -> Edge:
        """The only output of the same operation on other inputs."""
        (edge,) = add_operation(self._graph, operation.type, f"{operation.name}/trained", inputs, operation.attributes)
        edge.shape = shape
        return edge

    def gather(self, source: Edge, indices: Edge, axis: int, name: str) -> Edge:
        """GatherV2 along an axis."""
        types = {"Tparams": source.dtype, "Tindices": indices.dtype, "Taxis": tf.int32}
        shape = None
        if source.shape is not None and indices.shape is not None:
            shape = (*source.shape[:axis], *indices.shape, *source.shape[axis + 1 :])
        return self.emit("GatherV2", name, [source, indices, self.constant(np.int32(axis), name)], shape, **types)

    def transpose(self, source: Edge, permutation: Sequence[int], name: str) -> Edge:
        """Transpose."""
        shape = None if source.shape is None else tuple(source.shape[axis] for axis in permutation)
        order = self.constant(np.array(permutation, np.int32), name)
        return self.emit("Transpose", name, [source, order], shape, T=source.dtype, Tperm=tf.int32)

    def concat(self, pieces: list[Edge], axis: int, shape: tuple[int | None, ...] | None, name: str) -> Edge:
        """ConcatV2, or the only piece."""
        if len(pieces) == 1:
            return pieces[0]
        inputs = [*pieces, self.constant(np.int32(axis), name)]
        return self.emit("ConcatV2", name, inputs, shape, N=len(pieces), T=pieces[0].dtype, Tidx=tf.int32)

    def split(self, source: Edge, sizes: Sequence[int], axis: int, name: str) -> list[Edge]:
        """SplitV, or the whole as the only piece."""
        if len(sizes) == 1:
            return [source]
        inputs = [source, self.constant(np.array(sizes, np.int64), name), self.constant(np.int32(axis), name)]
        types = {"num_split": len(sizes), "T": source.dtype, "Tlen": tf.int64}
        made = {key: _attribute(value) for key, value in types.items()}
        return add_operation(self._graph, "SplitV", name, inputs, made)

    def select(self, source: Edge, axis: int, indices: npt.NDArray[np.int64], name: str) -> Edge:
        """Slices of a tensor of known rank along an axis: a block where they are one."""
        assert source.shape is not None
        shape = (*source.shape[:axis], len(indices), *source.shape[axis + 1 :])
        if len(indices) == source.shape[axis]:
            return source
        if indices[-1] - indices[0] + 1 != len(indices):
            edge = self.gather(source, self.constant(indices.astype(np.int32), name), axis, name)
        else:
            begin, end = np.zeros(axis + 1, np.int32), np.zeros(axis + 1, np.int32)
            begin[axis], end[axis] = indices[0], indices[-1] + 1
            bounds = [self.constant(array, name) for array in (begin, end, np.ones_like(begin))]
            whole = (1 << axis) - 1
            masks = {"begin_mask": whole, "end_mask": whole, "T": source.dtype, "Index": tf.int32}
            edge = self.emit("StridedSlice", name, [source, *bounds], shape, **masks)
        edge.shape = shape
        return edge


def _attribute(value: Any) -> Any:
    if isinstance(value, attr_value_pb2.AttrValue):
        return value
    if isinstance(value, int):
        return attr_value_pb2.AttrValue(i=value)
    return attr_value_pb2.AttrValue(type=tf.as_dtype(value).as_datatype_enum)


def constant_of(edge: Edge, through: frozenset[str] = frozenset({"Identity", "StopGradient"})) -> Any:
    """The value of a Const, also behind operations that pass it on; None where it is none."""
    producer = edge.producer
    while producer is not None and producer.type in through:
        producer = producer.inputs[0].producer
    if producer is None or producer.type != "Const":
        return None
    return tensor_util.MakeNdarray(producer.attributes["value"].tensor)
