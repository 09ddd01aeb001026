"""Computes the gradient of some slices of a variable alone, by asking less of the operations that make it.

A column of a product is the product with one column: a gradient is cut where it comes from, as far back as the
operations are known. Where they are not, the whole gradient is computed and cut then.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.training.graph import Edge, Operation
from graphfreeze.training.insertions import Insertions, Place, constant_of
from graphfreeze.training.masked_rows import without_mask
from graphfreeze.training.sliced_reads import SlicedVariable

__all__ = ["SlicedGradient"]

_SAME_SHAPE = frozenset({"AddN", "Cast", "Identity", "Neg", "StopGradient"})
_ELEMENTWISE = _SAME_SHAPE | {"Add", "AddV2", "Mul", "RealDiv", "SelectV2", "Sub"}
_RESHAPES = frozenset({"ExpandDims", "Reshape", "Squeeze"})
_FILTER_GRADIENTS = frozenset({"Conv2DBackpropFilter", "Conv3DBackpropFilterV2"})
_IN_BLOCKS = frozenset({"ExpandDims", "Reshape", "SpaceToBatchND"})


class SlicedGradient:
    """Cuts one gradient.

    Args:
        variable: Whose gradient it is.
        insertions: Where new operations go.
    """

    def __init__(self, variable: SlicedVariable, insertions: Insertions) -> None:
        self._variable = variable
        self._insertions = insertions
        self._indices = variable.slices.indices
        self._made: dict[tuple[int, int], Edge] = {}

    def cut(self, gradient: Edge) -> Edge:
        """The gradient of the trained slices, from the whole gradient."""
        gradient.shape = self._variable.shape
        return self._cut(gradient, self._variable.slices.axis)

    def _cut(self, edge: Edge, axis: int) -> Edge:
        """The trained slices of an edge whose shape is known along with all its sizes, along an axis of it."""
        if edge is self._variable.put_together:
            return self._variable.state
        key = (id(edge), axis)
        if key not in self._made:
            made = None
            if edge.producer is not None:
                place = self._insertions.behind(edge.producer)
                made = self._cut_result(edge.producer, edge, axis, place)
            self._made[key] = made or self._select(edge, axis)
        return self._made[key]

    def _cut_result(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        """The slices of an operation's result by the operation on less; None where it is not known how."""
        kind = operation.type
        if kind == "Const":
            value: npt.NDArray[np.generic] = constant_of(edge)
            return place.constant(np.take(value, self._indices, axis=axis), operation.name)
        if kind in _ELEMENTWISE:
            return self._elementwise(operation, edge, axis, place)
        if kind in _RESHAPES:
            return self._reshape(operation, edge, axis, place)
        if kind in _FILTER_GRADIENTS:
            return self._filter_gradient(operation, edge, axis, place)
        rule = _RULES.get(kind)
        return None if rule is None else rule(self, operation, edge, axis, place)

    def _select(self, edge: Edge, axis: int) -> Edge:
        """Slices of what is computed whole."""
        producer = edge.producer
        place = self._insertions.first() if producer is None else self._insertions.behind(producer)
        return place.select(edge, axis, self._indices, f"{edge.name}/trained")

    # -- operations whose result has the slices of their inputs

    def _elementwise(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        shape = _sizes(edge)
        inputs: list[Edge] = []
        for given in operation.inputs:
            if operation.type in _SAME_SHAPE or all(_is_single(e) for e in operation.inputs if e is not given):
                given.shape = shape
            sizes = given.shape
            if sizes is None:
                return None
            own = axis - len(shape) + len(sizes)
            if own < 0 or sizes[own] == 1 < shape[axis]:
                inputs.append(given)
            elif sizes[own] == shape[axis] and _sizes(given):
                inputs.append(self._cut(given, own))
            else:
                return None
        less = (*shape[:axis], len(self._indices), *shape[axis + 1 :])
        for kept in _passed_on(operation, inputs):
            if kept.shape == less:
                return kept
        return place.again(operation, inputs, less)

    def _reshape(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        shape, given = _sizes(edge), operation.inputs[0]
        before = _same_elements(given, shape)
        for own, size in enumerate(before):
            if size == shape[axis] and math.prod(before[:own]) == math.prod(shape[:axis]):
                less = (*shape[:axis], len(self._indices), *shape[axis + 1 :])
                goal = place.constant(np.array(less, np.int32), operation.name)
                types = {"T": edge.dtype, "Tshape": tf.int32}
                return place.emit("Reshape", f"{operation.name}/trained", [self._cut(given, own), goal], less, **types)
        return None

    def _transpose(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        order = constant_of(operation.inputs[1])
        if order is None or not _sizes(operation.inputs[0]):
            return None
        shape = _sizes(edge)
        less = (*shape[:axis], len(self._indices), *shape[axis + 1 :])
        return place.again(operation, [self._cut(operation.inputs[0], int(order[axis])), operation.inputs[1]], less)

    # -- products: slices of the result are products with slices of a factor

    def _matmul(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        transposed = "transpose_b" if axis else "transpose_a"
        flag = operation.attributes.get(transposed)
        own = axis if flag is None or not flag.b else 1 - axis
        return self._with_less(operation, edge, axis, {axis: own}, place)

    def _einsum(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        terms, _, result = operation.attributes["equation"].s.decode().partition("->")
        if "." in terms or " " in terms or len(result) != len(_sizes(edge)):
            return None
        positions = {
            number: term.index(result[axis]) for number, term in enumerate(terms.split(",")) if result[axis] in term
        }
        return self._with_less(operation, edge, axis, positions, place)

    def _filter_gradient(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        shape, (image, _, gradient) = _sizes(edge), operation.inputs
        last = len(shape) - 1
        layout = operation.attributes.get("data_format")
        channels_last = layout is None or layout.s in (b"", b"NHWC", b"NDHWC")
        grouped = image.shape is None or image.shape[-1] != shape[-2]
        if axis < last - 1 or grouped or not channels_last or _in_blocks(gradient):
            return None
        less = (*shape[:axis], len(self._indices), *shape[axis + 1 :])
        sizes = place.constant(np.array(less, np.int32), operation.name)
        number, given = (2, gradient) if axis == last else (0, image)
        if given.shape is None:
            return None
        inputs = [image, sizes, gradient]
        inputs[number] = place.select(given, last, self._indices, f"{given.name}/trained")
        return place.again(operation, inputs, less)

    def _with_less(
        self, operation: Operation, edge: Edge, axis: int, positions: dict[int, int], place: Place
    ) -> Edge | None:
        """The operation with slices of some inputs, along an axis of each."""
        inputs = list(operation.inputs)
        for number, own in positions.items():
            if inputs[number].shape is None:
                return None
            inputs[number] = place.select(inputs[number], own, self._indices, f"{inputs[number].name}/trained")
        shape = _sizes(edge)
        return place.again(operation, inputs, (*shape[:axis], len(self._indices), *shape[axis + 1 :]))

    # -- sums over lookups

    def _segment_sum(self, operation: Operation, edge: Edge, axis: int, place: Place) -> Edge | None:
        """Rows that are frozen all land in one more row, which is dropped."""
        rows, indices, _ = operation.inputs
        if axis != 0 or indices.shape is None:
            return None
        shape, count = _sizes(edge), len(self._indices)
        position = self._variable.positions.of(indices)
        end = place.constant(np.int32(-1), operation.name)
        deep = (*indices.shape, 1)
        position = place.emit("ExpandDims", operation.name, [position, end], deep, T=tf.int32, Tdim=tf.int32)
        goal = place.constant(np.array([count + 1, *shape[1:]], np.int32), operation.name)
        rows = without_mask(self._variable.slices, rows, indices, self._insertions)
        types = {"T": rows.dtype, "Tindices": tf.int32}
        summed = place.emit("ScatterNd", operation.name, [position, rows, goal], (count + 1, *shape[1:]), **types)
        return place.select(summed, 0, np.arange(count), f"{operation.name}/trained")


_Rule = Callable[[SlicedGradient, Operation, Edge, int, Place], Edge | None]

_RULES: dict[str, _Rule] = {
    "Einsum": SlicedGradient._einsum,
    "MatMul": SlicedGradient._matmul,
    "Transpose": SlicedGradient._transpose,
    "UnsortedSegmentSum": SlicedGradient._segment_sum,
}


def _sizes(edge: Edge) -> tuple[int, ...]:
    """The shape where it is static, otherwise nothing."""
    if edge.shape is None or None in edge.shape:
        return ()
    return tuple(size for size in edge.shape if size is not None)


def _is_single(edge: Edge) -> bool:
    """Whether it has one element: whatever it is combined with has the shape of the result."""
    return edge.shape is not None and all(size == 1 for size in edge.shape)


def _same_elements(edge: Edge, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an edge that has as many elements as another shape; nothing where it is not determined."""
    if edge.shape is not None and edge.shape.count(None) == 1:
        others = math.prod(size for size in edge.shape if size is not None)
        edge.shape = tuple(math.prod(shape) // max(others, 1) if size is None else size for size in edge.shape)
    return _sizes(edge)


def _passed_on(operation: Operation, inputs: list[Edge]) -> list[Edge]:
    """What the result is where a mask among these inputs is true everywhere: one of the others."""
    if operation.type == "Mul":
        return [b for a, b in (inputs, inputs[::-1]) if _is_ones(a)]
    return inputs[1:2] if operation.type == "SelectV2" and _is_ones(inputs[0]) else []


def _is_ones(edge: Edge) -> bool:
    value = constant_of(edge)
    return value is not None and bool(np.all(value == 1))


def _in_blocks(edge: Edge) -> bool:
    """Whether it is in blocks of space: lowering wants to find a dilated convolution there, and finds it whole only."""
    producer = edge.producer
    while producer is not None and producer.type in _IN_BLOCKS:
        if producer.type == "SpaceToBatchND":
            return True
        producer = producer.inputs[0].producer
    return False
