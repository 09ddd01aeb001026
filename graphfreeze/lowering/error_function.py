"""The error function and its inverse: ONNX's Erf in float32, a rational approximation in float64, which has no kernel.

The approximations of erf are those of Sun's fdlibm (s_erf.c), which err by less than one unit in the last place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.horner import horner
from graphfreeze.lowering.rule import CannotLower, Node

__all__ = ["emit_erf", "emit_erfc", "emit_erfinv"]

# |x| < 0.84375: erf(x) = x + x * P(x^2) / Q(x^2)
_P0 = (
    1.28379167095512558561e-01,
    -3.25042107247001499370e-01,
    -2.84817495755985104766e-02,
    -5.77027029648944159157e-03,
    -2.37630166566501626084e-05,
)
_Q0 = (
    1.0,
    3.97917223959155352819e-01,
    6.50222499887672944485e-02,
    5.08130628187576562776e-03,
    1.32494738004321644526e-04,
    -3.96022827877536812320e-06,
)
# 0.84375 <= |x| < 1.25: erf(x) = C + P(|x| - 1) / Q(|x| - 1)
_C1 = 8.45062911510467529297e-01
_P1 = (
    -2.36211856075265944077e-03,
    4.14856118683748331666e-01,
    -3.72207876035701323847e-01,
    3.18346619901161753674e-01,
    -1.10894694282396677476e-01,
    3.54783043256182359371e-02,
    -2.16637559486879084300e-03,
)
_Q1 = (
    1.0,
    1.06420880400844228286e-01,
    5.40397917702171048937e-01,
    7.18286544141962662868e-02,
    1.26171219808761642112e-01,
    1.36370839120290507362e-02,
    1.19844998467991074170e-02,
)
# 1.25 <= |x| < 1/0.35: erfc(x) = exp(-x^2 - 0.5625 + R(1/x^2) / S(1/x^2)) / x
_R2 = (
    -9.86494403484714822705e-03,
    -6.93858572707181764372e-01,
    -1.05586262253232909814e01,
    -6.23753324503260060396e01,
    -1.62396669462573470355e02,
    -1.84605092906711035994e02,
    -8.12874355063065934246e01,
    -9.81432934416914548592e00,
)
_S2 = (
    1.0,
    1.96512716674392571292e01,
    1.37657754143519042600e02,
    4.34565877475229228821e02,
    6.45387271733267880336e02,
    4.29008140027567833386e02,
    1.08635005541779435134e02,
    6.57024977031928170135e00,
    -6.04244152148580987438e-02,
)
# 1/0.35 <= |x| < 28: the same with other polynomials
_R3 = (
    -9.86494292470009928597e-03,
    -7.99283237680523006574e-01,
    -1.77579549177547519889e01,
    -1.60636384855821916062e02,
    -6.37566443368389627722e02,
    -1.02509513161107724954e03,
    -4.83519191608651397019e02,
)
_S3 = (
    1.0,
    3.03380607434824582924e01,
    3.25792512996573918826e02,
    1.53672958608443695994e03,
    3.19985821950859553908e03,
    2.55305040643316442583e03,
    4.74528541206955367215e02,
    -2.24409524465858183362e01,
)


# Giles, "Approximating the erfinv function": polynomials in w - 2.5 and sqrt(w) - 3, w = -log(1 - x^2), to be times x
_CENTRE = (
    1.50140941,
    0.246640727,
    -0.00417768164,
    -0.00125372503,
    0.00021858087,
    -4.39150654e-06,
    -3.5233877e-06,
    3.43273939e-07,
    2.81022636e-08,
)
_ENDS = (
    2.83297682,
    1.00167406,
    0.00943887047,
    -0.0076224613,
    0.00573950773,
    -0.00367342844,
    0.00134934322,
    0.000100950558,
    -0.000200214257,
)


def emit_erf(node: Node, x: ir.Value) -> ir.Value:
    """erf(x)."""
    if node.dtype != np.float64:
        return node.emit("Erf", x)
    near, tail = _near(node, x), _tail(node, node.emit("Abs", x))
    far = node.emit("Mul", node.emit("Sign", x), node.emit("Sub", node.scalar(1), tail))
    return node.emit("Where", node.emit("Less", node.emit("Abs", x), node.scalar(0.84375)), near, far)


def emit_erfc(node: Node, x: ir.Value) -> ir.Value:
    """erfc(x)."""
    one = node.scalar(1)
    if node.dtype != np.float64:
        return node.emit("Sub", one, node.emit("Erf", x))
    size = node.emit("Abs", x)
    near, tail = node.emit("Sub", one, _near(node, x)), _tail(node, size)
    negative = node.emit("Less", x, node.scalar(0))
    far = node.emit("Where", negative, node.emit("Sub", node.scalar(2), tail), tail)
    return node.emit("Where", node.emit("Less", size, node.scalar(0.84375)), near, far)


def emit_erfinv(node: Node, x: ir.Value) -> ir.Value:
    """The inverse of erf, in float32.

    Raises:
        CannotLower: float64.
    """
    if node.dtype == np.float64:
        raise CannotLower("float64; float32 and float16 are covered")
    one = node.scalar(1)
    product = node.emit("Mul", node.emit("Sub", one, x), node.emit("Add", one, x))
    w = node.emit("Neg", node.emit("Log", product))
    centre = horner(node, node.emit("Sub", w, node.scalar(2.5)), _CENTRE)
    ends = horner(node, node.emit("Sub", node.emit("Sqrt", w), node.scalar(3)), _ENDS)
    return node.emit("Mul", node.emit("Where", node.emit("Less", w, node.scalar(5)), centre, ends), x)


def _near(node: Node, x: ir.Value) -> ir.Value:
    """erf(x) for |x| < 0.84375."""
    square = node.emit("Mul", x, x)
    return node.emit("Add", x, node.emit("Mul", x, _ratio(node, square, _P0, _Q0)))


def _tail(node: Node, size: ir.Value) -> ir.Value:
    """erfc(|x|) for |x| >= 0.84375."""
    middle = _ratio(node, node.emit("Sub", size, node.scalar(1)), _P1, _Q1)
    middle = node.emit("Sub", node.scalar(1 - _C1), middle)
    bounded = node.emit("Min", size, node.scalar(28.0))
    square = node.emit("Mul", bounded, bounded)
    inverse = node.emit("Reciprocal", square)
    close = node.emit("Less", size, node.scalar(1 / 0.35))
    ratio = node.emit("Where", close, _ratio(node, inverse, _R2, _S2), _ratio(node, inverse, _R3, _S3))
    exponent = node.emit("Sub", node.emit("Sub", ratio, node.scalar(0.5625)), square)
    outer = node.emit("Div", node.emit("Exp", exponent), bounded)
    return node.emit("Where", node.emit("Less", size, node.scalar(1.25)), middle, outer)


def _ratio(node: Node, x: ir.Value, numerator: Sequence[float], denominator: Sequence[float]) -> ir.Value:
    return node.emit("Div", horner(node, x, numerator), horner(node, x, denominator))
