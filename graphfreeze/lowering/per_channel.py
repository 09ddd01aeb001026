"""Multiplies an image by a number per channel and adds another one in a single pass over it.

That is what is left of batch normalization, of which Keras has every operation traced on its own, in both directions:
`x * scale + offset`, and `dy * scale + centred * slope + offset`. ONNX has one operator for it: BatchNormalization with
a mean of 0 and a variance of 1.
"""

from __future__ import annotations

from functools import partial, reduce

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Layout, Tensor

__all__ = ["add", "multiply", "scale_and_shift"]

EPSILON = 2.0**-16
"""What BatchNormalization adds to the variance; large enough for cuDNN, and 1 minus it is exact."""


def multiply(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """The product; one of an image and a number per channel is remembered as such."""
    if _is_covered(node):
        first, second = _operands(node)
        if _is_image(node, first) and _is_per_channel(node, second):
            node.outputs[0].scaled = (x, y)
        elif _is_image(node, second) and _is_per_channel(node, first):
            node.outputs[0].scaled = (y, x)
    return node.emit("Mul", x, y)


def add(node: Node, *terms: ir.Value) -> ir.Value:
    """The sum from left to right; a number per channel is added while an image is multiplied by another one."""
    values = list(terms)
    if not _is_covered(node):
        return reduce(partial(node.emit, "Add"), values)
    tensors = _operands(node)
    offsets = [index for index, tensor in enumerate(tensors) if _is_per_channel(node, tensor)]
    scaled = [tensor.scaled for tensor in tensors if tensor.scaled is not None and _is_image(node, tensor)]
    if len(offsets) == 1 and scaled:
        index = [tensor.scaled for tensor in tensors].index(scaled[-1])
        values[index] = scale_and_shift(node, *scaled[-1], values[offsets[0]])
        del values[offsets[0]]
    return reduce(partial(node.emit, "Add"), values)


def scale_and_shift(node: Node, image: ir.Value, scale: ir.Value, offset: ir.Value) -> ir.Value:
    """The image * scale + offset, the image [batch, channels, *spatial], the others with an element per channel."""
    channels = node.outputs[0].dim(-1)
    zero, one = np.zeros(channels[0], node.dtype), np.full(channels[0], 1 - EPSILON, node.dtype)
    vectors = [node.reshape(vector, [channels]) for vector in (scale, offset)]
    return node.emit("BatchNormalization", image, *vectors, zero, one, epsilon=EPSILON)


def _operands(node: Node) -> list[Tensor]:
    """The inputs as an elementwise rule gets them."""
    return [tensor.narrow or tensor for tensor in node.inputs]


def _is_covered(node: Node) -> bool:
    output = node.outputs[0]
    return (
        3 <= output.rank <= 5
        and node.dtype in (np.dtype(np.float32), np.dtype(np.float64))
        and len(set(output.dim(-1))) == 1
        and node.lowering.common_layout(_operands(node), output.rank) is Layout.CHANNELS_FIRST
    )


def _is_image(node: Node, tensor: Tensor) -> bool:
    return tensor.shapes == node.outputs[0].shapes


def _is_per_channel(node: Node, tensor: Tensor) -> bool:
    """Whether it has the channels, and in no other axis more than one element."""
    dims, channels = tensor.dims, node.outputs[0].dim(-1)
    return bool(dims) and dims[-1] == channels and all(set(dim) == {1} for dim in dims[:-1]) and set(channels) != {1}
