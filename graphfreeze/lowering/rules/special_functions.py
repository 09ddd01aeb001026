"""The error function and its relatives."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.error_function import emit_erf, emit_erfc
from graphfreeze.lowering.rule import Node, elementwise


@elementwise("Erf")
def erf(node: Node, x: ir.Value) -> ir.Value:
    """The error function."""
    return emit_erf(node, x)


@elementwise("Erfc")
def erfc(node: Node, x: ir.Value) -> ir.Value:
    """1 - erf(x)."""
    return emit_erfc(node, x)
