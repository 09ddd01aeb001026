"""The error function and its relatives."""

from __future__ import annotations

import math

import onnx_ir as ir

from graphfreeze.lowering.error_function import emit_erf, emit_erfc, emit_erfinv
from graphfreeze.lowering.rule import Node, elementwise


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
