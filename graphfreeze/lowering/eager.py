"""Runs one operation of a functional graph in TensorFlow, now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import op_def_registry

from graphfreeze.training.graph import Operation

__all__ = ["execute_operation"]


def execute_operation(operation: Operation, tensors: Sequence[Any]) -> list[Any]:
    """The output tensors of an operation without bodies for these input tensors, on the CPU."""
    attributes: list[Any] = []
    for attribute in op_def_registry.get(operation.type).attr:
        value = operation.attributes.get(attribute.name)
        if value is not None:
            attributes += [attribute.name, _raw(value)]
    with tf.device("CPU:0"), tf.init_scope():
        made = execute.execute(
            operation.type, len(operation.outputs), list(tensors), tuple(attributes), context.context()
        )
    return list(made)


def _raw(value: Any) -> Any:
    """An AttrValue as the eager runtime takes it: enums stay numbers, strings stay bytes."""
    kind = value.WhichOneof("value")
    if kind == "list":
        for field in ("s", "i", "f", "b", "type"):
            if len(getattr(value.list, field)):
                return list(getattr(value.list, field))
        return [_shape(shape) for shape in value.list.shape]
    return _shape(value.shape) if kind == "shape" else getattr(value, kind)


def _shape(shape: Any) -> Any:
    return None if shape.unknown_rank else [dim.size for dim in shape.dim]
