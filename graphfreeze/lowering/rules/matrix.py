"""Bands and diagonals of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.tensor import Tensor


def _main_diagonal(offsets: npt.NDArray[Any]) -> None:
    if np.any(offsets):
        raise CannotLower(f"the diagonals {offsets.tolist()}; the main diagonal (0) is covered")


@rule("MatrixBandPart", inputs=(PLAIN, KNOWN, KNOWN))
def matrix_band_part(node: Node, value: ir.Value, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> ir.Value:
    """The matrices with zeros outside a band around the main diagonal."""
    if lower >= 0:
        value = node.emit("Trilu", value, np.int64(-lower), upper=1)
    if upper >= 0:
        value = node.emit("Trilu", value, np.int64(upper), upper=0)
    return value


@rule("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3", inputs=(PLAIN, KNOWN, UNUSED))
def matrix_diagonal(node: Node, value: ir.Value, offsets: npt.NDArray[Any] | None = None) -> ir.Value:
    """The main diagonals of matrices."""
    if offsets is not None:
        _main_diagonal(offsets)
    source = node.inputs[0]
    rows, columns = source.shape[-2:]
    if rows is None or columns is None:
        kept = emit_where(node, _identity(node, source), value, node.lowering.builder.constant(_zeros(node, source)))
        return node.emit("ReduceSum", kept, node.int64([source.rank - 1]), keepdims=0)
    length = min(rows, columns)
    top = node.emit("Slice", value, node.int64([0]), node.int64([length]), node.int64([source.rank - 2]))
    flat = node.reshape(top, [*source.dims[:-2], length * columns])
    axis = node.int64([source.rank - 2])
    return node.emit("Slice", flat, node.int64([0]), node.int64([length * columns]), axis, node.int64([columns + 1]))


@rule("MatrixDiag", inputs=(PLAIN,))
def matrix_of_diagonal_old(node: Node, diagonal: ir.Value) -> ir.Value:
    """Square matrices with given main diagonals, zeros elsewhere."""
    return _diagonal_matrix(node, diagonal)


@rule("MatrixDiagV2", "MatrixDiagV3", inputs=(PLAIN, KNOWN, UNUSED))
def matrix_of_diagonal(node: Node, diagonal: ir.Value, offsets: npt.NDArray[Any]) -> ir.Value:
    """Square matrices with given main diagonals, zeros elsewhere."""
    _main_diagonal(offsets)
    return _diagonal_matrix(node, diagonal)


def _diagonal_matrix(node: Node, diagonal: ir.Value) -> ir.Value:
    column = node.reshape(diagonal, [*node.inputs[0].dims, 1])
    return emit_where(
        node, _identity(node, node.outputs[0]), column, node.lowering.builder.constant(_zeros(node, node.outputs[0]))
    )


@rule("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3", inputs=(PLAIN, PLAIN, KNOWN))
def matrix_set_diagonal(
    node: Node, value: ir.Value, diagonal: ir.Value, offsets: npt.NDArray[Any] | None = None
) -> ir.Value:
    """The matrices with other main diagonals."""
    if offsets is not None:
        _main_diagonal(offsets)
    column = node.reshape(diagonal, [*node.inputs[1].dims, 1])
    return emit_where(node, _identity(node, node.outputs[0]), column, value)


def _identity(node: Node, matrices: Tensor) -> ir.Value:
    """Where the main diagonal of square matrices is."""
    size, columns = matrices.dims[-2:]
    if size != columns:
        raise CannotLower(f"matrices of {size[0]} rows and {columns[0]} columns; square matrices are covered")
    ones = [1] * (matrices.rank - 2)
    if len(set(size)) == 1:
        return node.lowering.builder.constant(np.eye(size[0], dtype=np.bool_).reshape(*ones, size[0], size[0]))
    limit = node.emit("Reshape", node.vector([size]), node.int64([]))
    numbers = node.emit("Range", np.int64(0), limit, np.int64(1))
    return node.emit("Equal", node.reshape(numbers, [*ones, size, 1]), node.reshape(numbers, [*ones, 1, size]))


def _zeros(node: Node, like: Tensor) -> npt.NDArray[Any]:
    return node.scalar(0, like.rank)
