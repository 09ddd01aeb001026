"""What TensorFlow notes of the handles of variables, in loops and branches of loaded functions.

TensorFlow notes of each handle the shape and dtype of its variable, and needs both for a gradient. It notes nothing in
the bodies of a loaded SavedModel's loops, nor of what a loop returns: there, the gradient of a variable that is read in
a loop within a loop is zero, without a word, and a branch within a loop has none. Both go by what goes in: a loop
returns the handle that it was given in the same place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util_v2, handle_data_util, resource_variable_ops

__all__ = ["known_handles"]

_HANDING_ON = frozenset({"Identity", "IdentityN", "While", "StatelessWhile"})
_WITH_PREDICATE = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})


@contextmanager
def known_handles() -> Iterator[None]:
    """Let TensorFlow know of every handle what variable it is of, while gradients are traced or computed."""
    noted = handle_data_util.get_resource_handle_data
    make_body = control_flow_util_v2.get_func_graph

    def get_resource_handle_data(tensor: Any) -> Any:
        data = noted(tensor)
        while not data.is_set and tensor.op.type in _HANDING_ON:
            tensor = tensor.op.inputs[tensor.value_index]
            data = noted(tensor)
        return data

    def get_func_graph(operation: Any, *arguments: Any) -> Any:
        body = make_body(operation, *arguments)
        given = operation.inputs[1:] if operation.type in _WITH_PREDICATE else operation.inputs
        for outer, inner in zip(given, body.inputs, strict=False):
            if inner.dtype == tf.resource:
                handle_data_util.set_handle_data(inner, handle_data_util.get_handle_data(outer))
        return body

    with ExitStack() as stack:
        for module in (handle_data_util, resource_variable_ops, ops):
            stack.callback(setattr, module, "get_resource_handle_data", module.get_resource_handle_data)
            module.get_resource_handle_data = get_resource_handle_data
        stack.callback(setattr, control_flow_util_v2, "get_func_graph", make_body)
        control_flow_util_v2.get_func_graph = get_func_graph
        yield
