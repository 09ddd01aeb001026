"""Trigonometric and hyperbolic functions, and their inverses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.direct import declare_direct
from graphfreeze.lowering.rule import CannotLower, Node, elementwise
from graphfreeze.lowering.rules.exponential import emit_expm1, emit_log1p

declare_direct(
    __name__,
    (
        ("Sin", "Sin", "The sine."),
        ("Cos", "Cos", "The cosine."),
    ),
)


def _single(operator: str, formula: str) -> Callable[..., ir.Value]:
    """What onnxruntime computes up to float32 only."""

    def lower(node: Node, x: ir.Value) -> ir.Value:
        if node.dtype == np.float64:
            raise CannotLower("float64, for which onnxruntime has no kernel; float32 and float16 are covered")
        return node.emit(operator, x)

    lower.__doc__ = formula
    return lower


for _operation, _formula in (
    ("Asin", "The inverse sine."),
    ("Acos", "The inverse cosine."),
    ("Atan", "The inverse tangent."),
):
    elementwise(_operation)(_single(_operation, _formula))


@elementwise("Atan2")
def atan2(node: Node, y: ir.Value, x: ir.Value) -> ir.Value:
    """The angle of the point (x, y)."""
    if node.dtype == np.float64:
        raise CannotLower("float64, for which onnxruntime has no kernel; float32 and float16 are covered")
    zero = node.scalar(0)
    angle = node.emit("Atan", node.emit("Div", y, x))
    below = node.emit("Less", y, zero)
    half_turn = node.emit("Where", below, node.scalar(-math.pi), node.scalar(math.pi))
    turned = node.emit("Where", node.emit("Less", x, zero), node.emit("Add", angle, half_turn), angle)
    both = node.emit("And", node.emit("Equal", x, zero), node.emit("Equal", y, zero))
    return node.emit("Where", both, zero, turned)


@elementwise("Tan")
def tan(node: Node, x: ir.Value) -> ir.Value:
    """The tangent."""
    return node.emit("Div", node.emit("Sin", x), node.emit("Cos", x))


# The hyperbolic functions have no float64 kernels and none on CUDA: they are made of exponentials and logarithms.


@elementwise("Sinh")
def sinh(node: Node, x: ir.Value) -> ir.Value:
    """The hyperbolic sine."""
    size = node.emit("Abs", x)
    grown = emit_expm1(node, size)  # with e = exp|x| - 1, sinh|x| is (e + e / (e + 1)) / 2
    shrunk = node.emit("Div", grown, node.emit("Add", grown, node.scalar(1)))
    half = node.emit("Mul", node.emit("Add", grown, shrunk), node.scalar(0.5))
    return node.emit("Mul", node.emit("Sign", x), half)


@elementwise("Cosh")
def cosh(node: Node, x: ir.Value) -> ir.Value:
    """The hyperbolic cosine."""
    grown = node.emit("Exp", x)
    return node.emit("Mul", node.emit("Add", grown, node.emit("Reciprocal", grown)), node.scalar(0.5))


@elementwise("Asinh")
def asinh(node: Node, x: ir.Value) -> ir.Value:
    """The inverse hyperbolic sine."""
    one, size = node.scalar(1), node.emit("Abs", x)
    square = node.emit("Mul", x, x)
    root = node.emit("Sqrt", node.emit("Add", square, one))
    beyond = node.emit("Add", size, node.emit("Div", square, node.emit("Add", root, one)))
    return node.emit("Mul", node.emit("Sign", x), emit_log1p(node, beyond))


@elementwise("Acosh")
def acosh(node: Node, x: ir.Value) -> ir.Value:
    """The inverse hyperbolic cosine."""
    one = node.scalar(1)
    beyond = node.emit("Sub", x, one)
    root = node.emit("Sqrt", node.emit("Mul", beyond, node.emit("Add", x, one)))
    return emit_log1p(node, node.emit("Add", beyond, root))


@elementwise("Atanh")
def atanh(node: Node, x: ir.Value) -> ir.Value:
    """The inverse hyperbolic tangent."""
    difference = node.emit("Sub", emit_log1p(node, x), emit_log1p(node, node.emit("Neg", x)))
    return node.emit("Mul", difference, node.scalar(0.5))
