"""Random numbers from the runtime's own generator, for devices that have no kernels for TensorFlow's."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.error_function import emit_erfinv
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Tensor

__all__ = ["emit_native", "named_noise"]

_FLOAT = np.dtype(np.float32)
_BEYOND_TWO = math.erf(math.sqrt(2))  # how much of a normal distribution lies within two standard deviations


def emit_native(node: Node, kind: str, *source: ir.Value) -> ir.Value | None:
    """Numbers of the same distribution, or None where TensorFlow's own are wanted.

    What TensorFlow draws twice from one source is drawn once. In a loop or a branch numbers are TensorFlow's.

    Args:
        node: The operation that draws.
        kind: `StatelessRandomUniform`, `StatelessRandomNormal` or `StatelessTruncatedNormal`; others are not replaced.
        source: What TensorFlow draws from: a seed, or a key and a counter.
    """
    draw = {
        "StatelessRandomUniform": _uniform,
        "StatelessRandomNormal": _normal,
        "StatelessTruncatedNormal": _truncated_normal,
    }.get(kind)
    lowering, output = node.lowering, node.outputs[0]
    if draw is None or not lowering.native_noise or lowering.builder.depth:
        return None
    key = (kind, output.dtype, output.shapes, *map(id, source))
    if key not in lowering.native_draws:
        drawn = draw(Node(lowering, node.operation, node.inputs, [Tensor(_FLOAT, output.shapes)]))
        drawn = drawn if output.dtype == _FLOAT else node.cast(drawn, output.dtype)
        lowering.native_draws[key] = named_noise(node, drawn)
    return lowering.native_draws[key]


def named_noise(node: Node, value: ir.Value) -> ir.Value:
    """The value under the name by which checks find what an operation draws."""
    if not (value.name or "").endswith("/noise"):
        value.name = node.lowering.builder.unique(f"{node.operation.name}/noise")
    return value


def _like(node: Node) -> ir.Value:
    return node.emit("Expand", node.scalar(0), node.shape(node.outputs[0]))


def _uniform(node: Node) -> ir.Value:
    return node.emit("RandomUniformLike", _like(node), dtype=int(ir.DataType.FLOAT))


def _normal(node: Node) -> ir.Value:
    return node.emit("RandomNormalLike", _like(node), dtype=int(ir.DataType.FLOAT))


def _truncated_normal(node: Node) -> ir.Value:
    """By the inverse of the distribution, of numbers that are uniform where it ends."""
    even = node.emit("RandomUniformLike", _like(node), dtype=int(ir.DataType.FLOAT), low=-_BEYOND_TWO, high=_BEYOND_TWO)
    return node.emit("Mul", emit_erfinv(node, even), node.scalar(math.sqrt(2)))
