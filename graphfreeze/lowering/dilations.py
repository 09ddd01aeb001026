"""Finds dilated convolutions where TensorFlow traced SpaceToBatchND, an undilated convolution and BatchToSpaceND.

`tf.nn.convolution`, and with it every Keras layer, writes `dilation_rate` so. The same holds for the gradients: the
filter's takes both its inputs in blocks, the input's is itself between the two. Each becomes one dilated operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.lowering.attributes import to_python
from graphfreeze.lowering.paddings import Pads, constant_of, difference, paddings
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["recover_dilations"]

FORWARD = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")
INPUT_GRADIENT = ("Conv2DBackpropInput", "Conv3DBackpropInputV2", "DepthwiseConv2dNativeBackpropInput")
FILTER_GRADIENT = ("Conv2DBackpropFilter", "Conv3DBackpropFilterV2", "DepthwiseConv2dNativeBackpropFilter")


@dataclass(frozen=True, slots=True)
class _Blocked:
    """An edge that is its `source`, padded and in blocks; `axis` is where an axis of size 1 was inserted for Conv1D."""

    source: Edge
    blocks: tuple[int, ...]
    pads: Pads
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    """What an undilated operation made of a blocked edge; `dropped` tells whether the inserted axis is gone again."""

    operation: Operation
    given: _Blocked
    dropped: bool = False


def recover_dilations(graph: Graph) -> Graph:
    """Replace what lies between blocks of space by dilated convolutions and their gradients.

    Where the pattern is not complete, it stays as it was. The given graph does not change: others share its operations.
    """
    if not any(operation.type == "SpaceToBatchND" for operation in graph.operations):
        return graph
    recovered = _Recovery(graph).run()
    recovered.prune()
    return recovered


class _Recovery:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.operations: list[Operation] = []
        self.replaced: dict[int, Edge] = {}
        self.blocked: dict[int, _Blocked] = {}
        self.pending: dict[int, _Pending] = {}

    def run(self) -> Graph:
        for operation in self.graph.operations:
            inputs = [self.replaced.get(id(edge), edge) for edge in operation.inputs]
            current = operation if inputs == operation.inputs else replace(operation, inputs=inputs)
            self.operations.append(current)
            self.visit(current)
        outputs = [self.replaced.get(id(edge), edge) for edge in self.graph.outputs]
        return Graph(self.graph.inputs, self.operations, outputs)

    def visit(self, operation: Operation) -> None:
        match operation.type:
            case "SpaceToBatchND":
                self.enter(operation)
            case "BatchToSpaceND":
                self.leave(operation)
            case "ExpandDims":
                axis = constant_of(operation.inputs[1])
                if axis is not None:
                    self.insert_axis(operation, int(axis) % 4)
            case "Squeeze":
                self.drop_axis(operation, [axis % 4 for axis in to_python(operation.attributes["squeeze_dims"])])
            case "Reshape":
                self.reshape(operation)
            case kind if kind in FORWARD:
                self.suspend(operation, operation.inputs[0])
            case kind if kind in INPUT_GRADIENT:
                self.suspend(operation, operation.inputs[2])
            case kind if kind in FILTER_GRADIENT:
                self.filter_gradient(operation)

    # -- the parts of the pattern

    def enter(self, operation: Operation) -> None:
        source, block, padding = operation.inputs
        blocks, pads = constant_of(block), paddings(padding)
        if blocks is not None and pads is not None:
            sizes = tuple(int(size) for size in blocks)
            self.blocked[id(operation.outputs[0])] = _Blocked(source, sizes, pads)

    def suspend(self, operation: Operation, edge: Edge) -> None:
        given = self.blocked.get(id(edge))
        if given is not None and _is_plain(operation) and _is_of_space(given, operation):
            self.pending[id(operation.outputs[0])] = _Pending(operation, _filled(given, operation))

    def insert_axis(self, operation: Operation, axis: int) -> None:
        given = self.blocked.get(id(operation.inputs[0]))
        if given is not None and given.axis is None and len(given.blocks) == 1 and axis in (1, 2):
            self.blocked[id(operation.outputs[0])] = _Blocked(
                self.expand(operation, given.source, axis),
                _insert(given.blocks, axis - 1, 1),
                _insert(given.pads, axis - 1, (0, 0)),
                axis,
            )

    def drop_axis(self, operation: Operation, axes: list[int]) -> None:
        made = self.pending.get(id(operation.inputs[0]))
        if made is not None and not made.dropped and axes == [made.given.axis]:
            self.pending[id(operation.outputs[0])] = _Pending(made.operation, made.given, dropped=True)

    def reshape(self, operation: Operation) -> None:
        """The gradients of ExpandDims and Squeeze reshape to the shape of what those were given."""
        goal = _shape_of(operation.inputs[1])
        if goal is None:
            return
        blocked, pending = self.blocked.get(id(goal)), self.pending.get(id(goal))
        if pending is not None and not pending.dropped and pending.given.axis is not None:
            self.insert_axis(operation, pending.given.axis)
        elif blocked is not None and blocked.axis is None:
            made = self.pending.get(id(operation.inputs[0]))
            if made is not None and made.given.axis is not None:
                self.drop_axis(operation, [made.given.axis])

    def leave(self, operation: Operation) -> None:
        made = self.pending.get(id(operation.inputs[0]))
        blocks, crops = constant_of(operation.inputs[1]), paddings(operation.inputs[2])
        if made is None or blocks is None or crops is None or made.dropped != (made.given.axis is not None):
            return
        inner, given = made.operation, made.given
        taken = _Blocked(operation.inputs[0], tuple(int(size) for size in blocks), crops)
        if given.axis is not None:
            wider = _insert(taken.blocks, given.axis - 1, 1), _insert(taken.pads, given.axis - 1, (0, 0))
            taken = _Blocked(taken.source, *wider)
        if not _is_of_space(taken, inner):
            return
        taken = _filled(taken, inner)
        if taken.blocks != given.blocks:
            return
        if inner.type in FORWARD:
            attributes = _dilated(inner, inner.inputs[1], given.blocks, given.pads, taken.pads)
            inputs = [given.source, inner.inputs[1]]
        else:
            like = _shape_of(inner.inputs[0])
            blocked = None if like is None else self.blocked.get(id(like))
            if blocked is None or _filled(blocked, inner).pads != taken.pads:
                return
            attributes = _dilated(inner, inner.inputs[1], given.blocks, taken.pads, given.pads)
            inputs = [self.shape(operation, blocked.source), inner.inputs[1], given.source]
        if attributes is not None:
            result = self.add(inner.type, f"{inner.name}/dilated", inputs, attributes, inner.outputs[0].dtype)
            if given.axis is not None:
                result = self.squeeze(operation, result, given.axis)
            self.replaced[id(operation.outputs[0])] = result

    def filter_gradient(self, operation: Operation) -> None:
        x, sizes, dy = operation.inputs
        given, gradient = self.blocked.get(id(x)), self.blocked.get(id(dy))
        if given is None or gradient is None or not _is_plain(operation):
            return
        if not (_is_of_space(given, operation) and _is_of_space(gradient, operation)):
            return
        given, gradient = _filled(given, operation), _filled(gradient, operation)
        filters = _shape_of(sizes)
        attributes = _dilated(operation, filters, given.blocks, given.pads, gradient.pads)
        if attributes is not None and given.blocks == gradient.blocks:
            made = operation.outputs[0]
            inputs = [given.source, sizes, gradient.source]
            result = self.add(operation.type, f"{operation.name}/dilated", inputs, attributes, made.dtype)
            self.replaced[id(made)] = result

    # -- new operations

    def add(self, kind: str, name: str, inputs: list[Edge], attributes: dict[str, Any], dtype: Any) -> Edge:
        operation = Operation(kind, name, inputs, attributes=attributes)
        edge = Edge(name, dtype, None, operation)
        operation.outputs = [edge]
        self.operations.append(operation)
        return edge

    def expand(self, operation: Operation, source: Edge, axis: int) -> Edge:
        name = f"{operation.name}/unblocked"
        value = attr_value_pb2.AttrValue(tensor=tf.make_tensor_proto(np.int32(axis)))
        inputs = [source, self.add("Const", f"{name}/axis", [], {"value": value, "dtype": _type(tf.int32)}, tf.int32)]
        attributes = {"T": _type(source.dtype), "Tdim": _type(tf.int32)}
        return self.add("ExpandDims", name, inputs, attributes, source.dtype)

    def squeeze(self, operation: Operation, edge: Edge, axis: int) -> Edge:
        attributes = {"T": _type(edge.dtype), "squeeze_dims": _integers([axis])}
        return self.add("Squeeze", f"{operation.name}/unblocked", [edge], attributes, edge.dtype)

    def shape(self, operation: Operation, edge: Edge) -> Edge:
        attributes = {"T": _type(edge.dtype), "out_type": _type(tf.int32)}
        return self.add("Shape", f"{operation.name}/shape", [edge], attributes, tf.int32)


def _is_plain(operation: Operation) -> bool:
    """Whether it is undilated, unpadded, of stride one."""
    found = {name: to_python(value) for name, value in operation.attributes.items() if name[0] != "_"}
    ones = {*found.get("strides", [1]), *(found.get("dilations") or [1])} == {1}
    return ones and found.get("padding") == "VALID"


def _has_channels_first(operation: Operation) -> bool:
    given = operation.attributes.get("data_format")
    return given is not None and to_python(given).startswith("NC")


def _is_of_space(blocked: _Blocked, operation: Operation) -> bool:
    """Whether the channels stay as they are. Where they come first, they are an axis of the blocks."""
    if not _has_channels_first(operation):
        return True
    return len(blocked.blocks) > 1 and blocked.blocks[0] == 1 and blocked.pads[0] == (0, 0) and blocked.axis is None


def _filled(blocked: _Blocked, operation: Operation) -> _Blocked:
    """On the spatial axes: without one for channels in front, with blocks of one position where there are none."""
    if _has_channels_first(operation):
        blocked = replace(blocked, blocks=blocked.blocks[1:], pads=blocked.pads[1:])
    rest = (3 if "3D" in operation.type else 2) - len(blocked.blocks)
    return replace(blocked, blocks=(*blocked.blocks, *[1] * rest), pads=(*blocked.pads, *[(0, 0)] * rest))


def _dilated(
    operation: Operation, filters: Edge | None, blocks: tuple[int, ...], given: Pads, taken: Pads
) -> dict[str, Any] | None:
    """The attributes of the dilated operation: `given` is padded to its input, `taken` to its output."""
    pads: list[tuple[int, int]] = []
    for (a, b), (c, d) in zip(given, taken, strict=True):
        low, high = difference(a, c), difference(b, d)
        if low is None or high is None or min(low, high) < 0:
            return None
        pads.append((low, high))
    if len(blocks) == 3 and blocks[1] != blocks[2]:
        return None  # TensorFlow's shape function of Conv3D takes these two dilations for one another
    attributes = dict(operation.attributes)
    first = _has_channels_first(operation)
    attributes["dilations"] = _integers([1, 1, *blocks] if first else [1, *blocks, 1])
    if not any(map(any, pads)):
        return attributes
    if "3D" not in operation.type:
        attributes["padding"] = attr_value_pb2.AttrValue(s=b"EXPLICIT")
        sizes, none = [size for pair in pads for size in pair], [0, 0]
        attributes["explicit_paddings"] = _integers([*none, *none, *sizes] if first else [*none, *sizes, *none])
        return attributes
    shape = filters.shape if filters is not None and filters.shape is not None else ()
    reach = [((size or 1) - 1) * block for size, block in zip(shape, blocks, strict=False)]
    attributes["padding"] = attr_value_pb2.AttrValue(s=b"SAME")  # three axes have no explicit padding in TensorFlow
    return attributes if pads == [(total // 2, total - total // 2) for total in reach] else None


def _shape_of(edge: Edge) -> Edge | None:
    """The edge whose shape this one is."""
    producer = edge.producer
    if producer is None or producer.type not in ("Shape", "ShapeN"):
        return None
    return next(given for given, made in zip(producer.inputs, producer.outputs, strict=True) if made is edge)


def _insert(items: Sequence[Any], position: int, item: Any) -> tuple[Any, ...]:
    return (*items[:position], item, *items[position:])


def _type(dtype: Any) -> Any:
    return attr_value_pb2.AttrValue(type=dtype.as_datatype_enum)


def _integers(numbers: Sequence[int]) -> Any:
    return attr_value_pb2.AttrValue(list=attr_value_pb2.AttrValue.ListValue(i=numbers))
