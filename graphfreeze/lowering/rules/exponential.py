"""Exponentials, logarithms, powers and roots."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.rule import Node, elementwise

__all__ = ["emit_expm1", "emit_log1p"]


@elementwise("Exp")
def exp(node: Node, x: ir.Value) -> ir.Value:
    """e to the x."""
    return node.emit("Exp", x)


@elementwise("Log")
def log(node: Node, x: ir.Value) -> ir.Value:
    """The natural logarithm."""
    return node.emit("Log", x)


@elementwise("Expm1")
def emit_expm1(node: Node, x: ir.Value) -> ir.Value:
    """exp(x) - 1, exact near 0."""
    one = node.scalar(1)
    # Near 0 it is 2 t / (1 - t) with t = tanh(x / 2), where nothing cancels.
    t = node.emit("Tanh", node.emit("Mul", x, node.scalar(0.5)))
    near = node.emit("Div", node.emit("Add", t, t), node.emit("Sub", one, t))
    far = node.emit("Sub", node.emit("Exp", x), one)
    return node.emit("Where", node.emit("Less", node.emit("Abs", x), one), near, far)


@elementwise("Log1p")
def emit_log1p(node: Node, x: ir.Value) -> ir.Value:
    """log(1 + x), exact near 0."""
    one = node.scalar(1)
    u = node.emit("Add", x, one)
    exact = node.emit("Sub", u, one)
    logarithm = node.emit("Log", u)
    # What rounding 1 + x lost is put back.
    corrected = node.emit("Add", logarithm, node.emit("Div", node.emit("Sub", x, exact), u))
    # Where nothing was lost the correction is 0, or 0/0 at -1 and infinity.
    return node.emit("Where", node.emit("Equal", exact, x), logarithm, corrected)


@elementwise("Pow")
def power(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x to the y."""
    exponent = node.inputs[1].constant
    if exponent is not None and exponent.ndim == 0 and exponent == 2:
        return node.emit("Mul", x, x)
    return node.emit("Pow", x, y)


@elementwise("Sqrt")
def sqrt(node: Node, x: ir.Value) -> ir.Value:
    """The square root."""
    return node.emit("Sqrt", x)


@elementwise("Rsqrt")
def rsqrt(node: Node, x: ir.Value) -> ir.Value:
    """1 / sqrt(x)."""
    return node.emit("Reciprocal", node.emit("Sqrt", x))


@elementwise("Xlogy")
def xlogy(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x * log(y), and 0 where x is 0."""
    zero = node.scalar(0)
    return node.emit("Where", node.emit("Equal", x, zero), zero, node.emit("Mul", x, node.emit("Log", y)))


@elementwise("Xlog1py")
def xlog1py(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x * log(1 + y), and 0 where x is 0."""
    zero = node.scalar(0)
    return node.emit("Where", node.emit("Equal", x, zero), zero, node.emit("Mul", x, emit_log1p(node, y)))


# -- their gradients, which TensorFlow expresses in the outputs


@elementwise("SqrtGrad")
def sqrt_grad(node: Node, y: ir.Value, dy: ir.Value) -> ir.Value:
    """dy * 0.5 / y."""
    return node.emit("Div", node.emit("Mul", dy, node.scalar(0.5)), y)


@elementwise("RsqrtGrad")
def rsqrt_grad(node: Node, y: ir.Value, dy: ir.Value) -> ir.Value:
    """dy * -0.5 * y^3."""
    cube = node.emit("Mul", node.emit("Mul", y, y), y)
    return node.emit("Mul", node.emit("Mul", dy, node.scalar(-0.5)), cube)


@elementwise("ReciprocalGrad", "InvGrad")
def reciprocal_grad(node: Node, y: ir.Value, dy: ir.Value) -> ir.Value:
    """-dy * y^2."""
    return node.emit("Mul", node.emit("Neg", dy), node.emit("Mul", y, y))
