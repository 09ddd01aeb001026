"""Adds operations to a functional graph, with the output dtypes that TensorFlow's registry gives them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import op_def_registry

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["add_constant", "add_operation"]


def add_operation(
    graph: Graph, op_type: str, name: str, inputs: list[Edge], attributes: Mapping[str, Any]
) -> list[Edge]:
    """Append an operation and return its outputs.

    Raises:
        UnsupportedError: TensorFlow does not know the operation.
    """
    operation = Operation(op_type, name, inputs, attributes=dict(attributes))
    operation.outputs = [Edge(name, dtype, None, operation) for dtype in _output_dtypes(op_type, attributes)]
    graph.operations.append(operation)
    return list(operation.outputs)


def add_constant(graph: Graph, array: Any, name: str) -> Edge:
    """Append a Const."""
    value = attr_value_pb2.AttrValue(tensor=tf.make_tensor_proto(array))
    dtype = attr_value_pb2.AttrValue(type=value.tensor.dtype)
    return add_operation(graph, "Const", name, [], {"value": value, "dtype": dtype})[0]


def _output_dtypes(op_type: str, attributes: Mapping[str, Any]) -> list[Any]:
    results, defaults = _definition(op_type)
    dtypes: list[Any] = []
    for output in results:
        if output.type_list_attr:
            value = attributes.get(output.type_list_attr, defaults[output.type_list_attr])
            dtypes += [tf.as_dtype(item) for item in value.list.type]
            continue
        dtype = output.type or attributes.get(output.type_attr, defaults.get(output.type_attr)).type
        number = attributes.get(output.number_attr, defaults[output.number_attr]).i if output.number_attr else 1
        dtypes += [tf.as_dtype(dtype)] * number
    return dtypes


@cache
def _definition(op_type: str) -> tuple[list[Any], dict[str, Any]]:
    """The outputs of an operation and the defaults of its attributes, as TensorFlow describes them."""
    definition = op_def_registry.get(op_type)
    if definition is None:
        raise UnsupportedError(f"the operation {op_type} is not registered in this TensorFlow: load its library first")
    return list(definition.output_arg), {a.name: a.default_value for a in definition.attr}
