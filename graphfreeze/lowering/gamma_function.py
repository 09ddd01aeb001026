"""The logarithm of the gamma function and its derivative, of elementary operations.

The approximations of the logarithm are those of Sun's fdlibm (e_lgamma_r.c), those of the derivative Moshier's Cephes
(psi.c), which TensorFlow has, too. Between two poles below zero the logarithm is exact to the rounding of its terms,
not to its own where they cancel.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.builder import Operand
from graphfreeze.lowering.horner import horner
from graphfreeze.lowering.rule import Node

__all__ = ["emit_digamma", "emit_lgamma"]

# Around the root at 2: log(gamma(2 - y)) = y * A(y) - y / 2
_A = (
    7.72156649015328655494e-02,
    3.22467033424113591611e-01,
    6.73523010531292681824e-02,
    2.05808084325167332806e-02,
    7.38555086081402883957e-03,
    2.89051383673415629091e-03,
    1.19270763183362067845e-03,
    5.10069792153511336608e-04,
    2.20862790713908385557e-04,
    1.08011567247583939954e-04,
    2.52144565451257326939e-05,
    4.48640949618915160150e-05,
)
# Around the minimum: log(gamma(LEAST + y)) = LOWEST + y^2 * T(y)
_LEAST, _LOWEST = 1.46163214496836224576, -1.21486290535849611461e-01
_T = (
    4.83836122723810047042e-01,
    -1.47587722994593911752e-01,
    6.46249402391333854778e-02,
    -3.27885410759859649565e-02,
    1.79706750811820387126e-02,
    -1.03142241298341437450e-02,
    6.10053870246291332635e-03,
    -3.68452016781138256760e-03,
    2.25964780900612472250e-03,
    -1.40346469989232843813e-03,
    8.81081882437654011382e-04,
    -5.38595305356740546715e-04,
    3.15632070903625950361e-04,
    -3.12754168375120860518e-04,
    3.35529192635519073543e-04,
)
# Around the root at 1: log(gamma(1 + y)) = y * U(y) / V(y) - y / 2
_U = (
    -7.72156649015328655494e-02,
    6.32827064025093366517e-01,
    1.45492250137234768737e00,
    9.77717527963372745603e-01,
    2.28963728064692451092e-01,
    1.33810918536787660377e-02,
)
_V = (
    1.0,
    2.45597793713041134822e00,
    2.12848976379893395361e00,
    7.69285150456672783825e-01,
    1.04222645593369134254e-01,
    3.21709242282423911810e-03,
)
# From 2 to 3: log(gamma(2 + y)) = y * S(y) / R(y) + y / 2
_S = (
    -7.72156649015328655494e-02,
    2.14982415960608852501e-01,
    3.25778796408930981787e-01,
    1.46350472652464452805e-01,
    2.66422703033638609560e-02,
    1.84028451407337715652e-03,
    3.19475326584100867617e-05,
)
_R = (
    1.0,
    1.39200533467621045958e00,
    7.21935547567138069525e-01,
    1.71933865632803078993e-01,
    1.86459191715652901344e-02,
    7.77942496381893596434e-04,
    7.32668430744625636189e-06,
)
# From 8 on: (x - 1/2) * (log(x) - 1) + W0 + W(1/x^2) / x
_W0 = 4.18938533204672725052e-01
_W = (
    8.33333333333329678849e-02,
    -2.77777777728775536470e-03,
    7.93650558643019558500e-04,
    -5.95187557450339963135e-04,
    8.36339918996282139126e-04,
    -1.63092934096575273989e-03,
)
_SHIFTED_BELOW = 8
# psi(x) = log(x) - 1 / 2x - B(1/x^2) / x^2 from 10 on
_B = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)
_STEPS = 10


def emit_lgamma(node: Node, x: ir.Value) -> ir.Value:
    """log(|gamma(x)|)."""
    emit, number = node.emit, node.scalar
    size = emit("Abs", x)
    found = emit("Where", emit("Less", size, number(_SHIFTED_BELOW)), _shifted(node, size), _far(node, size))
    found = emit("Where", emit("Less", size, number(2)), _near(node, size), found)
    # Below zero it is log(pi / |x sin(pi x)|) - log(gamma(-x)), and infinite at whole numbers.
    fraction = emit("Abs", emit("Sub", x, emit("Round", x)))
    wave = emit("Sin", emit("Mul", fraction, number(math.pi)))
    mirrored = emit("Sub", emit("Sub", emit("Log", emit("Div", number(math.pi), wave)), emit("Log", size)), found)
    mirrored = emit("Where", emit("Greater", fraction, number(0)), mirrored, number(np.inf))
    return emit("Where", emit("Less", x, number(0)), mirrored, found)


def _near(node: Node, x: ir.Value) -> ir.Value:
    """For x from 0 to 2; below 0.9 it is that of x + 1, less log(x)."""
    emit, number = node.emit, node.scalar
    is_small = emit("Less", x, number(0.9))
    beyond_one = emit("Where", is_small, x, emit("Sub", x, number(1)))
    y = emit("Sub", number(1), beyond_one)
    at_two = emit("Mul", y, emit("Sub", horner(node, y, _A), number(0.5)))
    y = emit("Sub", beyond_one, number(_LEAST - 1))
    between = emit("Add", emit("Mul", emit("Mul", y, y), horner(node, y, _T)), number(_LOWEST))
    ratio = emit("Div", horner(node, beyond_one, _U), horner(node, beyond_one, _V))
    at_one = emit("Mul", beyond_one, emit("Sub", ratio, number(0.5)))
    found = emit("Where", emit("Less", beyond_one, number(0.7316)), between, at_two)
    found = emit("Where", emit("Less", beyond_one, number(0.23164)), at_one, found)
    return emit("Where", is_small, emit("Sub", found, emit("Log", x)), found)


def _shifted(node: Node, x: ir.Value) -> ir.Value:
    """For x from 2 to 8: that of a number from 2 to 3, and the logarithms of the steps from there."""
    emit, number = node.emit, node.scalar
    y = emit("Sub", x, emit("Floor", x))
    ratio = emit("Div", horner(node, y, _S), horner(node, y, _R))
    found = emit("Mul", y, emit("Add", ratio, number(0.5)))
    product: Operand = number(1)
    for step in range(2, _SHIFTED_BELOW - 1):
        factor = emit("Add", y, number(step))
        product = emit("Where", emit("Less", x, number(step + 1)), product, emit("Mul", product, factor))
    return emit("Add", found, emit("Log", product))


def _far(node: Node, x: ir.Value) -> ir.Value:
    """For x from 8 on: Stirling's series."""
    emit, number = node.emit, node.scalar
    inverse = emit("Reciprocal", x)
    series = emit("Mul", inverse, horner(node, emit("Mul", inverse, inverse), _W))
    main = emit("Mul", emit("Sub", x, number(0.5)), emit("Sub", emit("Log", x), number(1)))
    return emit("Add", main, emit("Add", series, number(_W0)))


def emit_digamma(node: Node, x: ir.Value) -> ir.Value:
    """The derivative of log(|gamma(x)|)."""
    emit, number = node.emit, node.scalar
    negative = emit("LessOrEqual", x, number(0))
    mirrored = emit("Where", negative, emit("Sub", number(1), x), x)
    # Below 10 it is that of x + 10, less 1 / x, 1 / (x + 1) and so on.
    is_small = emit("Less", mirrored, number(_STEPS))
    steps = emit("Reciprocal", emit("Add", mirrored, number(_STEPS - 1)))
    for step in reversed(range(_STEPS - 1)):
        steps = emit("Add", steps, emit("Reciprocal", emit("Add", mirrored, number(step))))
    at = emit("Where", is_small, emit("Add", mirrored, number(_STEPS)), mirrored)
    inverse = emit("Reciprocal", at)
    square = emit("Mul", inverse, inverse)
    series = emit("Add", emit("Mul", inverse, number(0.5)), emit("Mul", square, horner(node, square, _B)))
    found = emit("Sub", emit("Log", at), series)
    found = emit("Where", is_small, emit("Sub", found, steps), found)
    # Up to zero it is psi(1 - x) - pi / tan(pi x), and no number at whole numbers.
    fraction = emit("Sub", x, emit("Round", x))
    angle = emit("Mul", fraction, number(math.pi))
    cotangent = emit("Mul", emit("Div", emit("Cos", angle), emit("Sin", angle)), number(math.pi))
    cotangent = emit("Where", emit("Equal", fraction, number(0)), number(np.nan), cotangent)
    return emit("Where", negative, emit("Sub", found, cotangent), found)
