"""Bands and diagonals of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.tensor import Tensor


def _matrix_shape(tensor: Tensor) -> tuple[int, int]:
    rows, columns = tensor.shape[-2:]
    if rows is None or columns is None:
        raise CannotLower("matrices whose size follows the batch; static matrices are covered")
    return rows, columns


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
    rows, columns = _matrix_shape(source)
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
    rows, columns = _matrix_shape(node.outputs[0])
    if rows != columns:
        raise CannotLower(f"matrices of {rows} rows and {columns} columns; square matrices are covered")
    return _diagonal_matrix(node, diagonal)


def _diagonal_matrix(node: Node, diagonal: ir.Value) -> ir.Value:
    source = node.inputs[0]
    rows, _ = _matrix_shape(node.outputs[0])
    column = node.reshape(diagonal, [*source.dims, 1])
    return emit_where(node, _identity(node, rows), column, _zero(node))


@rule("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3", inputs=(PLAIN, PLAIN, KNOWN))
def matrix_set_diagonal(
    node: Node, value: ir.Value, diagonal: ir.Value, offsets: npt.NDArray[Any] | None = None
) -> ir.Value:
    """The matrices with other main diagonals."""
    if offsets is not None:
        _main_diagonal(offsets)
    rows, columns = _matrix_shape(node.outputs[0])
    if rows != columns:
        raise CannotLower(f"matrices of {rows} rows and {columns} columns; square matrices are covered")
    column = node.reshape(diagonal, [*node.inputs[1].dims, 1])
    return emit_where(node, _identity(node, rows), column, value)


def _identity(node: Node, size: int) -> ir.Value:
    return node.lowering.builder.constant(
        np.eye(size, dtype=np.bool_).reshape(*[1] * (node.outputs[0].rank - 2), size, size)
    )


def _zero(node: Node) -> ir.Value:
    return node.lowering.builder.constant(node.scalar(0))
