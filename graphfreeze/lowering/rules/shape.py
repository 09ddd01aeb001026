"""Shapes as values. They are known when the graph is lowered; what follows the batch is computed from its size."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphfreeze.lowering.rule import Node, special
from graphfreeze.lowering.tensor import Tensor


def _dtype(node: Node) -> Any:
    attribute = node.attribute("out_type")
    return np.int32 if attribute is None else attribute.as_numpy_dtype


@special("Shape", "ShapeN")
def shape(node: Node) -> list[Tensor]:
    """The shape of each input."""
    dtype = _dtype(node)
    return [node.lowering.known([np.array(shape, dtype) for shape in tensor.shapes]) for tensor in node.inputs]


@special("Size")
def size(node: Node) -> list[Tensor]:
    """The number of elements."""
    sizes = [np.prod(shape, dtype=np.int64) for shape in node.inputs[0].shapes]
    return [node.lowering.known([np.array(count, _dtype(node)) for count in sizes])]


@special("Rank")
def rank(node: Node) -> list[Tensor]:
    """The number of axes."""
    return [node.lowering.constant(np.array(node.inputs[0].rank, np.int32))]
