"""Elementwise arithmetic, broadcasting, in integers and floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import per_channel
from graphfreeze.lowering.direct import declare_direct
from graphfreeze.lowering.rule import CannotLower, Node, elementwise

declare_direct(
    __name__,
    (
        ("Sub", "Sub", "x - y."),
        ("RealDiv", "Div", "x / y."),
        ("Div", "Div", "x / y; integers are cut towards zero."),
        ("TruncateDiv", "Div", "x / y; integers are cut towards zero."),
        ("Neg", "Neg", "-x."),
        ("Abs", "Abs", "|x|."),
        ("Sign", "Sign", "-1, 0 or 1."),
        ("Reciprocal", "Reciprocal", "1 / x."),
        ("Inv", "Reciprocal", "1 / x."),
    ),
)


@elementwise("Add", "AddV2")
def add(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x + y."""
    return per_channel.add(node, x, y)


@elementwise("Mul")
def multiply(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x * y."""
    return per_channel.multiply(node, x, y)


def _is_integer(node: Node) -> bool:
    return node.dtype.kind in "iu"


# -- division


@elementwise("FloorDiv")
def floor_div(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """floor(x / y), for integers too."""
    quotient = node.emit("Div", x, y)
    if not _is_integer(node):
        return node.emit("Floor", quotient)
    if node.dtype.kind == "u":
        return quotient
    # ONNX divides towards zero: one too many exactly where the two kinds of remainder differ.
    same = node.emit("Equal", node.emit("Mod", x, y), node.emit("Mod", x, y, fmod=1))
    return node.emit("Sub", quotient, node.cast(node.emit("Not", same), node.dtype))


@elementwise("FloorMod")
def floor_mod(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """The remainder with the sign of y."""
    if _is_integer(node):
        return node.emit("Mod", x, y)
    remainder = node.emit("Mod", x, y, fmod=1)
    zero = node.scalar(0)
    opposite = node.emit("Xor", node.emit("Less", remainder, zero), node.emit("Less", y, zero))
    moved = node.emit("And", opposite, node.emit("Not", node.emit("Equal", remainder, zero)))
    return node.emit("Where", moved, node.emit("Add", remainder, y), remainder)


@elementwise("Mod", "TruncateMod")
def truncate_mod(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """The remainder with the sign of x."""
    return node.emit("Mod", x, y, fmod=1)


@elementwise("DivNoNan")
def div_no_nan(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x / y, and 0 where y is 0."""
    zero = node.scalar(0)
    return node.emit("Where", node.emit("Equal", y, zero), zero, node.emit("Div", x, y))


@elementwise("MulNoNan")
def mul_no_nan(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x * y, and 0 where y is 0, even if x is not finite."""
    zero = node.scalar(0)
    return node.emit("Where", node.emit("Equal", y, zero), zero, node.emit("Mul", x, y))


@elementwise("Xdivy")
def xdivy(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x / y, and 0 where x is 0."""
    zero = node.scalar(0)
    return node.emit("Where", node.emit("Equal", x, zero), zero, node.emit("Div", x, y))


# -- extremes and products


def _widened(node: Node, operator: str, *values: ir.Value) -> ir.Value:
    """Emit with 16-bit integers as 32-bit ones, which have kernels."""
    if node.dtype not in (np.dtype(np.int16), np.dtype(np.uint16)):
        return node.emit(operator, *values)
    return node.cast(node.emit(operator, *(node.cast(value, np.int32) for value in values)), node.dtype)


@elementwise("Maximum")
def maximum(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """max(x, y)."""
    return _widened(node, "Max", x, y)


@elementwise("Minimum")
def minimum(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """min(x, y)."""
    return _widened(node, "Min", x, y)


@elementwise("ClipByValue")
def clip_by_value(node: Node, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
    """min(max(x, low), high)."""
    return _widened(node, "Min", _widened(node, "Max", x, low), high)


@elementwise("Square")
def square(node: Node, x: ir.Value) -> ir.Value:
    """x * x."""
    return node.emit("Mul", x, x)


@elementwise("SquaredDifference")
def squared_difference(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """(x - y) * (x - y)."""
    difference = node.emit("Sub", x, y)
    return node.emit("Mul", difference, difference)


@elementwise("AddN", "AccumulateNV2")
def add_n(node: Node, *values: ir.Value) -> ir.Value:
    """The sum of all inputs, from left to right."""
    return per_channel.add(node, *values)


# -- rounding


def _rounding(operator: str, formula: str) -> Callable[..., ir.Value]:
    def lower(node: Node, x: ir.Value) -> ir.Value:
        return x if _is_integer(node) else node.emit(operator, x)

    lower.__doc__ = formula
    return lower


for _operation, _operator, _formula in (
    ("Floor", "Floor", "The nearest integer below."),
    ("Ceil", "Ceil", "The nearest integer above."),
    ("Round", "Round", "The nearest integer, halves to the even one."),
    ("Rint", "Round", "The nearest integer, halves to the even one."),
):
    elementwise(_operation)(_rounding(_operator, _formula))


# -- bits


declare_direct(
    __name__,
    (
        ("BitwiseAnd", "BitwiseAnd", "x & y."),
        ("BitwiseOr", "BitwiseOr", "x | y."),
        ("BitwiseXor", "BitwiseXor", "x ^ y."),
        ("Invert", "BitwiseNot", "~x."),
    ),
)


@elementwise("LeftShift", "RightShift")
def shift(node: Node, value: ir.Value, by: ir.Value) -> ir.Value:
    """The bits of an integer moved, as many places as y says."""
    if node.dtype in (np.dtype(np.uint8), np.dtype(np.uint32), np.dtype(np.uint64)):
        return node.emit("BitShift", value, by, direction="LEFT" if node.type == "LeftShift" else "RIGHT")
    places = node.inputs[1].constant
    if node.dtype.kind != "i" or places is None or places.size != 1:
        raise CannotLower(
            f"a shift of {node.dtype} by several numbers; uint8, uint32, uint64, and one number are covered"
        )
    power = node.scalar(2 ** int(places.item()))
    if node.type == "LeftShift":
        return node.emit("Mul", value, power)
    # ONNX cuts the quotient towards zero; what the negative ones lack is taken off first.
    rest = node.emit("Mod", value, power, fmod=0)
    return node.emit("Div", node.emit("Sub", value, rest), power)


# -- dtypes


@elementwise("Cast")
def cast(node: Node, value: ir.Value) -> ir.Value:
    """The same numbers in another dtype; floats are cut towards zero."""
    source = node.inputs[0].dtype
    for dtype in (source, node.dtype):
        if dtype.kind in "cOSU" or dtype.name.startswith("float8"):
            raise CannotLower(f"a cast from {source} to {node.dtype}; integers, floats and bool are covered")
    return value if source == node.dtype else node.cast(value, node.dtype)
