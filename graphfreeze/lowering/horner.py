"""Polynomials with known coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from graphfreeze.lowering.rule import Node

__all__ = ["horner"]


def horner(node: Node, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
    """By Horner's rule, the constant term first."""
    total = node.emit("Mul", x, node.scalar(coefficients[-1]))
    for coefficient in coefficients[-2:0:-1]:
        total = node.emit("Mul", node.emit("Add", total, node.scalar(coefficient)), x)
    return node.emit("Add", total, node.scalar(coefficients[0]))
