"""The error function, the logarithm of the gamma function, and their relatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.error_function import emit_erf, emit_erfc, emit_erfinv
from graphfreeze.lowering.gamma_function import emit_digamma, emit_lgamma
from graphfreeze.lowering.rule import Node, elementwise
from graphfreeze.lowering.tensor import Tensor


@elementwise("Erf")
def erf(node: Node, x: ir.Value) -> ir.Value:
    """The error function."""
    return emit_erf(node, x)


@elementwise("Erfc")
def erfc(node: Node, x: ir.Value) -> ir.Value:
    """1 - erf(x)."""
    return emit_erfc(node, x)


@elementwise("Erfinv")
def erfinv(node: Node, x: ir.Value) -> ir.Value:
    """The inverse of the error function."""
    return emit_erfinv(node, x)


@elementwise("Ndtri")
def ndtri(node: Node, x: ir.Value) -> ir.Value:
    """The quantile of the normal distribution."""
    doubled = node.emit("Sub", node.emit("Add", x, x), node.scalar(1))
    return node.emit("Mul", emit_erfinv(node, doubled), node.scalar(math.sqrt(2)))


@elementwise("Lgamma")
def lgamma(node: Node, x: ir.Value) -> ir.Value:
    """log(|gamma(x)|)."""
    return _in_float32(node, x, emit_lgamma)


@elementwise("Digamma")
def digamma(node: Node, x: ir.Value) -> ir.Value:
    """The derivative of log(|gamma(x)|)."""
    return _in_float32(node, x, emit_digamma)


def _in_float32(node: Node, x: ir.Value, emit: Callable[[Node, ir.Value], ir.Value]) -> ir.Value:
    """A function of x, in float32 where x has fewer bits, as TensorFlow has it."""
    if node.dtype.itemsize > 2:
        return emit(node, x)
    wide = Tensor(np.dtype(np.float32), node.outputs[0].shapes)
    return node.cast(
        emit(Node(node.lowering, node.operation, node.inputs, [wide]), node.cast(x, np.float32)), node.dtype
    )
