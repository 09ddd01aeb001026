"""Local response normalisation: each element over what its neighbours in other channels are, and its gradient."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CHANNELS_FIRST, CannotLower, Node, rule


@rule("LRN", inputs=(CHANNELS_FIRST,), outputs=(CHANNELS_FIRST,))
def local_response(node: Node, x: ir.Value) -> ir.Value:
    """x / (bias + alpha * sum(x^2))^beta, the sum over the channels up to the depth radius away."""
    size = 2 * int(node.attribute("depth_radius", 5)) + 1
    bias, alpha, beta = _numbers(node)
    # ONNX takes the mean, and onnxruntime has the operator in float32 alone.
    wide = x if node.dtype == np.float32 else node.cast(x, np.float32)
    found = node.emit("LRN", wide, size=size, bias=bias, alpha=alpha * size, beta=beta)
    return found if node.dtype == np.float32 else node.cast(found, node.dtype)


@rule("LRNGrad")
def local_response_gradient(node: Node, dy: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """dy / n^beta - 2 * alpha * beta * x * sum(dy * y / n), n = bias + alpha * sum(x^2), sums over near channels."""
    bias, alpha, beta = _numbers(node)
    near = _near(node)
    norm = node.emit("Mul", node.emit("MatMul", node.emit("Mul", x, x), near), node.scalar(alpha))
    norm = node.emit("Add", norm, node.scalar(bias))
    own = node.emit("Mul", dy, node.emit("Pow", norm, node.scalar(-beta)))
    others = node.emit("MatMul", node.emit("Div", node.emit("Mul", dy, y), norm), near)
    return node.emit("Sub", own, node.emit("Mul", node.emit("Mul", x, others), node.scalar(2 * alpha * beta)))


def _numbers(node: Node) -> tuple[float, float, float]:
    return node.attribute("bias", 1.0), node.attribute("alpha", 1.0), node.attribute("beta", 0.5)


def _near(node: Node) -> ir.Value:
    """Which channels count for which: a matrix of ones and zeros."""
    channels, radius = node.inputs[1].shape[-1], int(node.attribute("depth_radius", 5))
    if channels is None:
        raise CannotLower("a number of channels that only run time knows; a fixed one is covered")
    places = np.arange(channels)
    return node.lowering.builder.constant((np.abs(places[:, None] - places) <= radius).astype(node.dtype))
