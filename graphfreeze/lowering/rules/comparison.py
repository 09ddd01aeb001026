"""Comparisons, logic and selection."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.direct import declare_direct
from graphfreeze.lowering.rule import UNUSED, Node, elementwise, rule
from graphfreeze.lowering.tensor import Layout, Tensor

__all__ = ["emit_where"]


declare_direct(
    __name__,
    (
        ("Equal", "Equal", "x == y."),
        ("Less", "Less", "x < y."),
        ("LessEqual", "LessOrEqual", "x <= y."),
        ("Greater", "Greater", "x > y."),
        ("GreaterEqual", "GreaterOrEqual", "x >= y."),
        ("LogicalAnd", "And", "x and y."),
        ("LogicalOr", "Or", "x or y."),
        ("LogicalNot", "Not", "not x."),
        ("IsNan", "IsNaN", "Whether x is not a number."),
    ),
)


@elementwise("NotEqual")
def not_equal(node: Node, x: ir.Value, y: ir.Value) -> ir.Value:
    """x != y."""
    return node.emit("Not", node.emit("Equal", x, y))


@elementwise("IsInf")
def is_inf(node: Node, x: ir.Value) -> ir.Value:
    """Whether x is infinite."""
    return node.emit("Equal", node.emit("Abs", x), node.scalar(np.inf, dtype=node.inputs[0].dtype))


@elementwise("IsFinite")
def is_finite(node: Node, x: ir.Value) -> ir.Value:
    """Whether x is a finite number."""
    return node.emit("Less", node.emit("Abs", x), node.scalar(np.inf, dtype=node.inputs[0].dtype))


_WITHOUT_WHERE = tuple(map(np.dtype, (np.int16, np.uint16, np.uint64)))


def emit_where(node: Node, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """x where the condition holds, else y, for the dtypes that have no kernel of ONNX's Where too."""
    if node.dtype == np.bool_:
        kept = node.emit("And", condition, x)
        return node.emit("Or", kept, node.emit("And", node.emit("Not", condition), y))
    if node.dtype in _WITHOUT_WHERE:
        x, y = node.cast(x, np.int64), node.cast(y, np.int64)
        return node.cast(node.emit("Where", condition, x, y), node.dtype)
    return node.emit("Where", condition, x, y)


@elementwise("SelectV2")
def select(node: Node, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    """x where the condition holds, else y, broadcasting."""
    return emit_where(node, condition, x, y)


@rule("Select", inputs=(UNUSED,))
def select_rows(node: Node) -> Tensor:
    """x where the condition holds, else y; a vector of conditions selects along the first axis."""
    condition, x, y = node.inputs
    output = node.outputs[0]
    if condition.rank in (0, x.rank):
        layout = node.lowering.common_layout(node.inputs, x.rank)
        values = [node.lowering.broadcastable(tensor, layout, x.rank) for tensor in node.inputs]
    else:
        layout = Layout.PLAIN
        rows = node.reshape(node.value(condition), [condition.dim(0), *[1] * (x.rank - 1)])
        values = [rows, node.value(x), node.value(y)]
    output.values[layout] = emit_where(node, *values)
    return output
