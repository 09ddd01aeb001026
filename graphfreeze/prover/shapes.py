"""What a model notes of the shapes of its tensors."""

from __future__ import annotations

from collections.abc import Sequence

from tensorflow.core.framework import tensor_shape_pb2

from graphfreeze.prover.graph_view import GraphView, Tensor
from graphfreeze.prover.handles import CALLS
from graphfreeze.prover.operations import IFS

__all__ = ["static_shape"]

NOTE = "_output_shapes"
LISTS = CALLS | IFS | {"IdentityN"}
"""Operations with one list of outputs: elsewhere, a position does not say which output it is."""


def static_shape(view: GraphView, tensor: Tensor) -> tuple[int, ...] | None:
    """What is noted of a tensor's shape, where it is certain which of a node's outputs it is.

    Args:
        view: The body.
        tensor: A tensor of it, or an argument.

    Returns:
        The sizes, -1 for one that is not known; None where nothing is noted.
    """
    node = view.nodes.get(tensor.node)
    noted: Sequence[tensor_shape_pb2.TensorShapeProto] = []
    if node is not None:
        noted = node.attr[NOTE].list.shape if NOTE in node.attr else []
    elif view.definition is not None and view.arguments.get(tensor.node, -1) in view.definition.arg_attr:
        attributes = view.definition.arg_attr[view.arguments[tensor.node]].attr
        noted = attributes[NOTE].list.shape if NOTE in attributes else []
    if tensor.position >= len(noted) or (node is not None and len(noted) > 1 and node.op not in LISTS):
        return None
    shape = noted[tensor.position]
    return None if shape.unknown_rank else tuple(int(dim.size) for dim in shape.dim)
