"""Makes the double-precision twin of a functional graph: every floating-point tensor becomes float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from graphfreeze.lowering.retyping import Retyping
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation

__all__ = ["SinglePrecisionError", "promote_array", "promote_graph"]

_NARROW = frozenset({tf.float16, tf.bfloat16, tf.float32, tf.complex64})
_NARROW_ENUMS = frozenset(dtype.as_datatype_enum for dtype in _NARROW)
_DOUBLE = Retyping({dtype: tf.complex128 if dtype.is_complex else tf.float64 for dtype in _NARROW})
_DOUBLE_ENUMS = frozenset(dtype.as_datatype_enum for dtype in (tf.float64, tf.complex128))

_OWN_DTYPE = frozenset({"Bitcast", "StatelessRandomUniform", "StatelessRandomUniformV2"})
"""What gives other numbers in another dtype: bits, and random ones. These are exact in every implementation: they stay
in their own, between casts."""


class SinglePrecisionError(Exception):
    """An operation of TensorFlow does not exist in float64. The message names it."""


def promote_array(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A floating-point array as float64, any other as it is."""
    return _DOUBLE.array(array)


def promote_graph(named: NamedGraph, *, keep: Collection[str] = _OWN_DTYPE, allow: Collection[str] = ()) -> NamedGraph:
    """The same graph with float64 in place of narrower floating-point dtypes, and complex128 in place of complex64.

    The given one stays as it is.

    Args:
        named: The graph.
        keep: The types of the operations that stay in their own dtype. Their inputs and outputs are cast.
        allow: The types of the operations that may do what TensorFlow's cannot: another one computes them.

    Raises:
        SinglePrecisionError: An operation does not exist in float64.
    """
    return NamedGraph(_Promoter(keep, allow).promote(named.graph), list(named.inputs), list(named.outputs))


@dataclass(frozen=True)
class _Promoter:
    keep: Collection[str]
    allow: Collection[str]

    def promote(self, graph: Graph) -> Graph:
        made = Graph()
        edges: dict[int, Edge] = {}
        for edge in graph.inputs:
            edges[id(edge)] = Edge(edge.name, _DOUBLE.dtype(edge.dtype), edge.shape)
            made.inputs.append(edges[id(edge)])
        for operation in graph.operations:
            inputs = [edges[id(edge)] for edge in operation.inputs]
            if operation.type in self.keep:
                outputs = _keep(made, operation, inputs)
            else:
                outputs = self._promote_operation(made, operation, inputs).outputs
            edges.update(zip(map(id, operation.outputs), outputs, strict=True))
        made.outputs = [edges[id(edge)] for edge in graph.outputs]
        return made

    def _promote_operation(self, graph: Graph, operation: Operation, inputs: list[Edge]) -> Operation:
        promoted = Operation(operation.type, operation.name, inputs)
        promoted.attributes = {name: _DOUBLE.attribute(value) for name, value in operation.attributes.items()}
        promoted.bodies = {name: self.promote(body) for name, body in operation.bodies.items()}
        promoted.outputs = [Edge(e.name, _DOUBLE.dtype(e.dtype), e.shape, promoted) for e in operation.outputs]
        if not promoted.bodies and operation.type not in self.allow:
            _require_double(promoted)
        graph.operations.append(promoted)
        return promoted


def _keep(graph: Graph, operation: Operation, inputs: list[Edge]) -> list[Edge]:
    """The operation in its own dtype, its inputs and outputs cast."""
    own = [
        _DOUBLE.cast(graph, edge, before.dtype, f"{operation.name}/input_{index}")
        for index, (edge, before) in enumerate(zip(inputs, operation.inputs, strict=True))
    ]
    kept = Operation(operation.type, operation.name, own, attributes=dict(operation.attributes))
    kept.outputs = [Edge(e.name, e.dtype, e.shape, kept) for e in operation.outputs]
    graph.operations.append(kept)
    return [_DOUBLE.cast(graph, edge, _DOUBLE.dtype(edge.dtype), f"{edge.name}/double") for edge in kept.outputs]


def _require_double(operation: Operation) -> None:
    """Refuse an operation whose definition fixes a narrow dtype.

    Raises:
        SinglePrecisionError: It does.
    """
    definition = op_def_registry.get(operation.type)
    fixed = [a.name for a in (*definition.input_arg, *definition.output_arg) if a.type in _NARROW_ENUMS]
    # An attribute that is absent has its default, which is then a narrow dtype still.
    narrow = [
        a.name
        for a in definition.attr
        if not _allows(a, operation.attributes)
        or (a.name not in operation.attributes and a.default_value.type in _NARROW_ENUMS)
    ]
    if fixed or narrow:
        where = ", ".join((*fixed, *narrow))
        raise SinglePrecisionError(f"{operation.type} ({operation.name}) is not defined for float64 (its {where})")


def _allows(attribute: Any, attributes: Mapping[str, Any]) -> bool:
    value = attributes.get(attribute.name)
    allowed = attribute.allowed_values.list.type
    return value is None or value.type not in _DOUBLE_ENUMS or not allowed or value.type in allowed
