"""The bits of a number as another number, computed: ONNX has no operator that reads them.

A float of IEEE 754 has a sign, a biased exponent b and a fraction of n bits. It is (1 + fraction / 2^n) * 2^(b - bias),
and fraction / 2^n * 2^(1 - bias) where b is 0. Its bits without the sign, b * 2^n + fraction, are therefore
(c + |x| / power) * 2^n, where c = max(b - 1, 0) and power = 2^(c + 1 - bias). All of that is exact in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node, elementwise

_BOTH_WAYS = tuple(map(np.dtype, (np.float16, np.float32)))


@elementwise("Bitcast")
def bitcast(node: Node, x: ir.Value) -> ir.Value:
    """The same bits as another number of the same size: a whole one, float16 or float32."""
    before, after = node.inputs[0].dtype, node.dtype
    if before.itemsize == after.itemsize:
        if before.kind in "iu" and after.kind in "iu":
            return node.cast(x, after)
        if before in _BOTH_WAYS and after.kind in "iu":
            return _bits(node, x)
        if after in _BOTH_WAYS and before.kind in "iu":
            return _from_bits(node, x)
    raise CannotLower(
        f"the bits of {before} as {after}; whole numbers of one size, and these and float16 or float32, are covered"
    )


def _bits(node: Node, x: ir.Value) -> ir.Value:
    """The bits of a float; of any NaN those of the positive one that is quiet."""
    emit, info = node.emit, np.finfo(node.inputs[0].dtype)
    powers, one = _powers(info), _wide(node, 1)
    wide = node.cast(x, np.float64)
    # Infinity has the bits that the next power of two would have, NaN those of one and a half times that.
    size = emit("Min", emit("Abs", wide), _wide(node, powers[-1]))
    size = emit("Where", emit("IsNaN", x), _wide(node, 1.5 * powers[-1]), size)
    # The logarithm may be off by a rounding next to a power of two.
    logarithm = emit("Floor", emit("Mul", emit("Log", size), _wide(node, 1 / math.log(2))))
    about = node.cast(emit("Max", emit("Sub", logarithm, _wide(node, info.minexp)), _wide(node, 0)), np.int64)
    power = emit("Gather", powers, about)
    below = node.cast(emit("Less", size, power), np.int64)
    above = node.cast(emit("GreaterOrEqual", size, emit("Add", power, power)), np.int64)
    place = emit("Max", emit("Add", emit("Sub", about, below), above), _whole(node, 0))
    share = emit("Div", size, emit("Gather", powers, place))
    bits = emit("Mul", emit("Add", node.cast(place, np.float64), share), _wide(node, 2**info.nmant))
    # The sign of -0 shows in its reciprocal alone, that of -infinity does not.
    zero = _wide(node, 0)
    is_negative = emit("Or", emit("Less", wide, zero), emit("Less", emit("Div", one, wide), zero))
    signed = 2.0 ** (info.bits - 1) * (-1 if node.dtype.kind == "i" else 1)
    return node.cast(emit("Add", bits, emit("Where", is_negative, _wide(node, signed), zero)), node.dtype)


def _from_bits(node: Node, x: ir.Value) -> ir.Value:
    """The float that has these bits."""
    emit, info = node.emit, np.finfo(node.dtype)
    one, fractions = _whole(node, 1), _whole(node, 1 << info.nmant)
    powers, half = _powers(info), 1 << (info.bits - 1)
    numbers = node.cast(x, np.int64)
    # The remainder is not negative, so it is without the sign for signed numbers, too.
    bits = emit("Mod", numbers, _whole(node, half))
    is_negative = emit("Not", emit("Equal", bits, numbers))
    biased, fraction = emit("Div", bits, fractions), emit("Mod", bits, fractions)
    power = emit("Gather", powers, emit("Max", emit("Sub", biased, one), _whole(node, 0)))
    leading = node.cast(emit("Min", biased, one), np.float64)
    share = emit("Mul", node.cast(fraction, np.float64), _wide(node, 0.5**info.nmant))
    size = emit("Mul", emit("Add", leading, share), power)
    size = emit("Where", emit("Greater", size, _wide(node, powers[-1])), _wide(node, math.nan), size)
    size = emit("Where", emit("Equal", size, _wide(node, powers[-1])), _wide(node, math.inf), size)
    return node.cast(emit("Where", is_negative, emit("Neg", size), size), node.dtype)


def _powers(info: Any) -> npt.NDArray[np.float64]:
    """The powers of two that numbers have as their exponents, and the one that infinity would have."""
    return np.ldexp(1.0, np.arange(info.minexp, info.maxexp + 1))


def _wide(node: Node, number: float) -> npt.NDArray[Any]:
    return node.scalar(number, dtype=np.float64)


def _whole(node: Node, number: int) -> npt.NDArray[Any]:
    return node.scalar(number, dtype=np.int64)
