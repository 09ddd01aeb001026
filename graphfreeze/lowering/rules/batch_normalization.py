"""Fused batch normalization and its gradient, in training and in inference."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import IMAGES, PLAIN, Node, rule
from graphfreeze.lowering.tensor import Dim

FORWARD = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
GRADIENT = ("FusedBatchNormGrad", "FusedBatchNormGradV2", "FusedBatchNormGradV3")


@rule(*FORWARD, inputs=(IMAGES, PLAIN), outputs=(IMAGES,))
def batch_normalization(
    node: Node, x: ir.Value, scale: ir.Value, offset: ir.Value, mean: ir.Value, variance: ir.Value
) -> list[ir.Value]:
    """Batch normalization; in training it returns the batch's statistics, or moving averages of them."""
    empty = node.lowering.builder.constant(np.zeros(0, np.float32))
    if not node.attribute("is_training", True):
        y = node.emit("BatchNormalization", _wide(node, x), scale, offset, mean, variance, epsilon=_epsilon(node))
        return [_narrow(node, y), mean, variance, mean, variance, empty][: len(node.outputs)]
    over = _axes(node)
    count = _count(node)
    x = _wide(node, x)
    batch_mean = node.emit("ReduceMean", x, over, keepdims=0)
    centred = node.emit("Sub", x, _per_channel(node, batch_mean))
    squares = node.emit("ReduceSumSquare", centred, over, keepdims=0)
    batch_variance = node.emit("Div", squares, node.cast(node.vector([count]), np.float32))
    factor = node.emit("Mul", _reciprocal_deviation(node, batch_variance), scale)
    y = node.emit("Mul", centred, _per_channel(node, factor))
    y = node.emit("Add", y, _per_channel(node, offset))
    sample = tuple(max(size - 1, 1) for size in count)
    unbiased = node.emit("Div", squares, node.cast(node.vector([sample]), np.float32))
    statistics = [_average(node, mean, batch_mean), _average(node, variance, unbiased)]
    return [_narrow(node, y), *statistics, batch_mean, batch_variance, empty][: len(node.outputs)]


@rule(*GRADIENT, inputs=(IMAGES, IMAGES, PLAIN), outputs=(IMAGES,))
def batch_normalization_gradient(
    node: Node, dy: ir.Value, x: ir.Value, scale: ir.Value, mean: ir.Value, variance: ir.Value, *_reserve: ir.Value
) -> list[ir.Value]:
    """The gradients of batch normalization's input, scale and offset."""
    over = _axes(node)
    dy, x = _wide(node, dy), _wide(node, x)
    centred = node.emit("Sub", x, _per_channel(node, mean))
    inverse = _reciprocal_deviation(node, variance)
    sum_dy = node.emit("ReduceSum", dy, over, keepdims=0)
    scale_gradient = node.emit("Mul", node.emit("ReduceSum", node.emit("Mul", dy, centred), over, keepdims=0), inverse)
    factor = node.emit("Mul", inverse, scale)
    rest = dy
    if node.attribute("is_training", True):
        count = node.cast(node.vector([_count(node)]), np.float32)
        slope = node.emit("Div", node.emit("Mul", scale_gradient, inverse), count)
        rest = node.emit("Sub", rest, _per_channel(node, node.emit("Div", sum_dy, count)))
        rest = node.emit("Sub", rest, node.emit("Mul", centred, _per_channel(node, slope)))
    x_gradient = node.emit("Mul", rest, _per_channel(node, factor))
    empty = node.lowering.builder.constant(np.zeros(0, np.float32))
    return [_narrow(node, x_gradient), scale_gradient, sum_dy, empty, empty]


def _epsilon(node: Node) -> float:
    return float(node.attribute("epsilon", 1e-4))


def _axes(node: Node) -> ir.Value:
    return node.int64([0, *range(2, node.outputs[0].rank)])


def _count(node: Node) -> Dim:
    """The number of elements of a channel."""
    batch, _, *spatial = _dims(node)
    return tuple(prod(sizes) for sizes in zip(batch, *spatial, strict=True))


def _dims(node: Node) -> list[Dim]:
    """The dimensions, channels second. Keras 2 normalizes layers with the batch among the channels."""
    output = node.outputs[0]
    return [output.dim(axis) for axis in node.image_layout.permutation(output.rank)]


def _per_channel(node: Node, vector: ir.Value) -> ir.Value:
    rank = node.outputs[0].rank
    return node.reshape(vector, [1, _dims(node)[1], *[1] * (rank - 2)])


def _reciprocal_deviation(node: Node, variance: ir.Value) -> ir.Value:
    steadied = node.emit("Add", variance, np.full(1, _epsilon(node), np.float32))
    return node.emit("Reciprocal", node.emit("Sqrt", steadied))


def _average(node: Node, old: ir.Value, new: ir.Value) -> ir.Value:
    """The moving average that `exponential_avg_factor` asks for; at 1 the old value is not read."""
    factor = node.attribute("exponential_avg_factor", 1.0)
    if factor == 1:
        return new
    kept = node.emit("Mul", old, np.full(1, 1 - factor, np.float32))
    return node.emit("Add", kept, node.emit("Mul", new, np.full(1, factor, np.float32)))


def _wide(node: Node, value: ir.Value) -> ir.Value:
    """Half-precision images are normalized in float32, as TensorFlow does."""
    return value if node.dtype == np.float32 else node.cast(value, np.float32)


def _narrow(node: Node, value: ir.Value) -> ir.Value:
    return value if node.dtype == np.float32 else node.cast(value, node.dtype)
