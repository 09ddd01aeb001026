"""Rules for elementwise operations that are one ONNX operator."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from graphfreeze.lowering.rule import Node, elementwise

__all__ = ["declare_direct"]


def declare_direct(module: str, table: Iterable[tuple[str, str, str]]) -> None:
    """Declare a rule for each row of a table: TensorFlow's operation, ONNX's operator, what it computes.

    Args:
        module: The `__name__` of the family's module.
        table: The rows.
    """
    for operation, operator, formula in table:
        _declare(module, operation, operator, formula)


def _declare(module: str, operation: str, operator: str, formula: str) -> None:
    def lower(node: Node, *values: ir.Value) -> ir.Value:
        return node.emit(operator, *values)

    lower.__module__, lower.__doc__ = module, formula
    elementwise(operation)(lower)
