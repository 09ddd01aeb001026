"""The update of a large table by a gradient that is zero but for some rows, without making the gradient.

The gradient of a lookup is a sum of a few rows, scattered into zeros as large as the table. What optimizers do with it
first is linear in it or in its square: momentum + (gradient - momentum) * 0.1. Such a term is computed for the rows
alone and added to what it is without them, momentum * 0.9. That takes half as many passes over the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation
from graphfreeze.training.insertions import Place

__all__ = ["update_rows"]

_FEWEST_ELEMENTS = 1 << 18
"""Of a table that this is done for: in smaller ones little is won."""
_PASSES_ON = frozenset({"Identity", "IdentityN", "StopGradient"})
_DTYPES = (tf.float32, tf.float64)


def update_rows(named: NamedGraph) -> None:
    """Rewrite updates of large tables, in place, wherever nothing needs the gradient as a whole."""
    graph = named.graph
    for gradient in [operation for operation in graph.operations if operation.type == "UnsortedSegmentSum"]:
        index, (made,) = gradient.inputs[1], gradient.outputs
        shape = _static_shape(graph, made)
        if made.dtype not in _DTYPES or len(shape) < 2 or math.prod(shape) < _FEWEST_ELEMENTS:
            continue
        if index.shape is None or len(index.shape) != 1:
            continue
        try:
            _Rewriting(graph, gradient, shape).run()
        except _NeedsWholeError:
            continue
        graph.prune()


def _static_shape(graph: Graph, gradient: Edge) -> tuple[int, ...]:
    """The shape of a gradient, or of what it is passed on as; empty where it is not known."""
    same, edges = {id(gradient)}, [gradient]
    for operation in graph.operations:
        if operation.type in _PASSES_ON:
            pairs = zip(operation.inputs, operation.outputs, strict=True)
            edges += [output for edge, output in pairs if id(edge) in same]
            same.update(map(id, edges))
    shapes = [edge.shape for edge in edges if edge.shape is not None and None not in edge.shape]
    return tuple(size or 0 for size in shapes[0]) if shapes else ()


@dataclass(frozen=True)
class _Rows:
    """A tensor of the table's shape: rows, scattered into zeros by adding, and perhaps `factor * base`."""

    rows: Edge
    base: Edge | None = None
    factor: Edge | None = None


class _NeedsWholeError(Exception):
    """An operation needs the gradient as a whole."""


class _Rewriting:
    """Replaces what one gradient is used for by operations on its rows.

    Args:
        graph: The graph.
        gradient: The sum of rows by their index.
        shape: Its static shape.
    """

    def __init__(self, graph: Graph, gradient: Operation, shape: tuple[int, ...]) -> None:
        self._graph = graph
        self._gradient = gradient
        self._shape = shape
        self._dtype = gradient.outputs[0].dtype
        self._name = gradient.name
        self._place = Place(Graph())
        self._found: dict[int, _Rows] = {}
        self._renamed: dict[int, Edge] = {}
        self._squares: dict[int, Edge] = {}

    def run(self) -> None:
        """Change the graph.

        Raises:
            _NeedsWholeError: The rows are not enough. The graph is then as it was.
        """
        operations: list[Operation] = []
        for operation in self._graph.operations:
            if operation is not self._gradient and not any(id(edge) in self._found for edge in operation.inputs):
                operations.append(operation)
                continue
            added = Graph()
            self._place, self._name = Place(added), operation.name
            if operation is self._gradient:
                self._start()
            else:
                self._convert(operation)
            operations += added.operations
        if any(id(edge) in self._found for edge in self._graph.outputs):
            raise _NeedsWholeError
        for operation in operations:
            operation.inputs = [self._now(edge) for edge in operation.inputs]
        self._graph.operations = operations
        self._graph.outputs = [self._now(edge) for edge in self._graph.outputs]

    def _now(self, edge: Edge) -> Edge:
        return self._renamed.get(id(edge), edge)

    # -- the rows

    def _start(self) -> None:
        """As in the gradient, rows with a negative index are left out."""
        data, index, _ = self._gradient.inputs
        self._index_dtype, count = index.dtype, index.shape
        zero = self._place.constant(np.zeros((), index.dtype.as_numpy_dtype), self._name)
        left_out = self._emit("Less", [index, zero], count, T=index.dtype)
        column = (*(count or ()), *[1] * (len(self._shape) - 1))
        sizes = self._place.constant(np.array([-1, *column[1:]], np.int32), self._name)
        left_out = self._emit("Reshape", [left_out, sizes], column, T=tf.bool, Tshape=tf.int32)
        rows = self._emit("SelectV2", [left_out, self._number(0.0), data], data.shape, T=self._dtype)
        self._index = self._emit("Maximum", [index, zero], count, T=index.dtype)
        self._positions = self._as_positions(self._index)
        self._found[id(self._gradient.outputs[0])] = _Rows(rows)

    def _square(self, rows: Edge) -> Edge:
        """The square of the sum of the rows with the same index, once for each index, and zeros."""
        if id(rows) not in self._squares:
            place, size = self._place, self._shape[0]
            one, zero = (place.constant(np.int32(number), self._name) for number in (1, 0))
            count = self._emit("Size", [self._index], (), T=self._index_dtype, out_type=tf.int32)
            numbers = self._emit("Range", [zero, count, one], self._index.shape, Tidx=tf.int32)
            sizes = place.constant(np.array([size], np.int32), self._name)
            unseen = self._emit("Fill", [sizes, zero], (size,), T=tf.int32, index_type=tf.int32)
            types = {"T": tf.int32, "Tindices": self._index_dtype}
            last = self._emit("TensorScatterMax", [unseen, self._positions, numbers], (size,), **types)
            chosen = self._as_positions(place.gather(last, self._index, 0, self._name))
            zeros = self._emit("ZerosLike", [rows], rows.shape, T=self._dtype)
            sums = self._scatter(zeros, chosen, rows)
            self._squares[id(rows)] = self._emit("Square", [sums], rows.shape, T=self._dtype)
        return self._squares[id(rows)]

    # -- what is done with them

    def _convert(self, operation: Operation) -> None:
        inputs = [self._found.get(id(edge), self._now(edge)) for edge in operation.inputs]
        if operation.type in _PASSES_ON:
            results = inputs
        elif operation.type == "Square" and isinstance(inputs[0], _Rows) and inputs[0].base is None:
            results = [_Rows(self._square(inputs[0].rows))]
        elif operation.type == "Sum" and operation.outputs[0].shape == () and isinstance(inputs[0], _Rows):
            results = [self._sum(operation, inputs[0])]
        elif operation.type in ("Mul", "RealDiv", "AddV2", "Sub") and len(inputs) == 2:
            results = [self._calculate(operation.type, *inputs)]
        else:
            raise _NeedsWholeError
        for edge, result in zip(operation.outputs, results, strict=True):
            if isinstance(result, _Rows):
                self._found[id(edge)] = result
            else:
                self._renamed[id(edge)] = result

    def _calculate(self, kind: str, first: _Rows | Edge, second: _Rows | Edge) -> _Rows | Edge:
        if kind in ("Mul", "RealDiv"):
            if isinstance(first, Edge):
                first, second = second, first
                if kind == "RealDiv":
                    raise _NeedsWholeError
            if isinstance(first, _Rows) and isinstance(second, Edge):
                return self._times(kind, first, second)
        elif isinstance(first, _Rows) and isinstance(second, Edge):
            if first.base is None and kind == "Sub":
                return _Rows(first.rows, second, self._number(-1.0))
            if kind == "AddV2":
                return self._add(second, first)
        elif isinstance(first, Edge) and isinstance(second, _Rows):
            return self._add(first, second if kind == "AddV2" else self._times("Mul", second, self._number(-1.0)))
        raise _NeedsWholeError

    def _sum(self, operation: Operation, tensor: _Rows) -> Edge:
        """The sum of all elements: that of the rows, which have as many axes."""
        if tensor.base is not None:
            raise _NeedsWholeError
        return self._emit("Sum", [tensor.rows, operation.inputs[1]], (), **operation.attributes)

    def _times(self, kind: str, tensor: _Rows, other: Edge) -> _Rows:
        """Multiplied or divided by a number, or element by element by a tensor as large as the table."""
        rows, factor = tensor.rows, tensor.factor
        if other.shape != ():
            if tensor.base is not None or other.shape != self._shape:
                raise _NeedsWholeError
            other = self._place.gather(other, self._index, 0, self._name)
        elif factor is not None:
            factor = self._emit(kind, [factor, other], (), T=self._dtype)
        return _Rows(self._emit(kind, [rows, other], rows.shape, T=self._dtype), tensor.base, factor)

    def _add(self, whole: Edge, tensor: _Rows) -> Edge:
        """The sum with a tensor: the base, or any where there is none."""
        if tensor.factor is not None:
            if tensor.base is not whole:
                raise _NeedsWholeError
            factor = self._emit("AddV2", [self._number(1.0), tensor.factor], (), T=self._dtype)
            whole = self._emit("Mul", [whole, factor], self._shape, T=self._dtype)
        elif whole.shape != self._shape:
            raise _NeedsWholeError
        return self._scatter(whole, self._positions, tensor.rows)

    # -- operations

    def _number(self, value: float) -> Edge:
        return self._place.constant(np.array(value, self._dtype.as_numpy_dtype), self._name)

    def _as_positions(self, index: Edge) -> Edge:
        end = self._place.constant(np.int32(-1), self._name)
        return self._emit("ExpandDims", [index, end], (*(index.shape or ()), 1), T=index.dtype, Tdim=tf.int32)

    def _scatter(self, whole: Edge, positions: Edge, rows: Edge) -> Edge:
        types = {"T": self._dtype, "Tindices": positions.dtype}
        return self._emit("TensorScatterAdd", [whole, positions, rows], whole.shape, **types)

    def _emit(self, kind: str, inputs: list[Edge], shape: tuple[int | None, ...] | None, **types: object) -> Edge:
        return self._place.emit(kind, self._name, inputs, shape, **types)
