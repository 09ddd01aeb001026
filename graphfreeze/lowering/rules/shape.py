"""Shapes as values. They are known when the graph is lowered; what follows the batch is computed from its size."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.tensor import Layout, Tensor


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
    lowering, source = node.lowering, node.inputs[0]
    sizes = [np.array(np.prod(shape, dtype=np.int64), _dtype(node)) for shape in source.shapes]
    made = lowering.known(sizes)
    if lowering.sizes.fit(sizes) is None:
        with suppress(CannotLower):
            product = node.emit("ReduceProd", node.shape(source), keepdims=0)
            made.values[Layout.PLAIN] = node.cast(product, made.dtype)
    return [made]


@special("Rank")
def rank(node: Node) -> list[Tensor]:
    """The number of axes."""
    return [node.lowering.constant(np.array(node.inputs[0].rank, np.int32))]
