"""Bands and diagonals of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.tensor import Tensor

Offsets = npt.NDArray[Any]
"""How far a diagonal is to the right of the main one; of a band, of the lowest and of the uppermost diagonal."""
Places = npt.NDArray[np.int64]
_MAIN = np.zeros((), np.int64)


@rule("MatrixBandPart", inputs=(PLAIN, KNOWN, KNOWN))
def matrix_band_part(node: Node, value: ir.Value, lower: npt.NDArray[Any], upper: npt.NDArray[Any]) -> ir.Value:
    """The matrices with zeros outside a band around the main diagonal."""
    if lower >= 0:
        value = node.emit("Trilu", value, np.int64(-lower), upper=1)
    if upper >= 0:
        value = node.emit("Trilu", value, np.int64(upper), upper=0)
    return value


@rule("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3", inputs=(PLAIN, KNOWN, PLAIN))
def matrix_diagonal(node: Node, value: ir.Value, offsets: Offsets = _MAIN, padding: ir.Value | None = None) -> ir.Value:
    """A diagonal of matrices, or a band of them from the uppermost one down, padded to the longest one."""
    source, output = node.inputs[0], node.outputs[0]
    if np.any(offsets):
        places = _places(node, source, offsets)
        elements = np.full(output.shapes[0][source.rank - 2 :], -1)
        inside = places >= 0
        elements.flat[places[inside]] = np.flatnonzero(inside)
        return _picked(node, value, source, elements, padding)
    return node.reshape(_main_diagonal(node, value), output.dims)


def _main_diagonal(node: Node, value: ir.Value) -> ir.Value:
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


@rule("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3", inputs=(PLAIN, KNOWN, UNUSED, UNUSED, PLAIN))
def matrix_of_diagonal(
    node: Node, diagonal: ir.Value, offsets: Offsets = _MAIN, padding: ir.Value | None = None
) -> ir.Value:
    """Matrices with a given diagonal, or a band of them, and one number elsewhere (0 by default)."""
    return _with_diagonal(node, node.inputs[0], diagonal, offsets, padding)


@rule("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3", inputs=(PLAIN, PLAIN, KNOWN))
def matrix_set_diagonal(node: Node, value: ir.Value, diagonal: ir.Value, offsets: Offsets = _MAIN) -> ir.Value:
    """The matrices with another diagonal, or another band of them."""
    return _with_diagonal(node, node.inputs[1], diagonal, offsets, value)


def _with_diagonal(
    node: Node, source: Tensor, diagonal: ir.Value, offsets: Offsets, elsewhere: ir.Value | None
) -> ir.Value:
    output = node.outputs[0]
    rows, columns = output.dims[-2:]
    if np.any(offsets) or (rows != columns and None not in output.shape[-2:]):
        return _picked(node, diagonal, source, _places(node, output, offsets), elsewhere)
    column = node.reshape(diagonal, [*output.dims[:-1], 1])
    return emit_where(node, _identity(node, output), column, _padding(node, elsewhere))


def _places(node: Node, matrices: Tensor, offsets: Offsets) -> Places:
    """For each element of a matrix the number of its place among the diagonals of a band, and -1 outside of it.

    The diagonals are rows from the uppermost one down. Those above the main one, and those below it, begin on the left
    or end on the right.
    """
    rows, columns = matrices.shape[-2:]
    lower, upper = int(offsets.flat[0]), int(offsets.flat[-1])
    if rows is None or columns is None:
        raise CannotLower(
            f"the diagonals from {lower} to {upper} of matrices whose size only run time knows; of these the main "
            "diagonal (0) is covered, and of matrices of a fixed size all are"
        )
    row, column = np.indices((rows, columns))
    offset = column - row
    length = np.minimum(rows + np.minimum(offset, 0), columns - np.maximum(offset, 0))
    inside = (lower <= offset) & (offset <= upper)
    longest = int(np.max(length, where=inside, initial=0))
    above, below = node.attribute("align", "LEFT_LEFT").split("_")
    ends_right = np.where(offset > 0, above == "RIGHT", below == "RIGHT")
    along = np.minimum(row, column) + np.where(ends_right, longest - length, 0)
    return np.where(inside, (upper - offset) * longest + along, -1)


def _picked(node: Node, array: ir.Value, source: Tensor, places: Places, elsewhere: ir.Value | None) -> ir.Value:
    """The elements at places in the last axes of an array, and something else where there is no place (-1)."""
    batch = node.outputs[0].rank - places.ndim
    count = int(np.prod(source.shapes[0][batch:]))
    flat = node.reshape(array, [*source.dims[:batch], count])
    picked = node.emit("Gather", flat, node.lowering.builder.constant(np.maximum(places, 0)), axis=batch)
    if np.all(places >= 0):
        return picked
    is_inside = node.lowering.builder.constant((places >= 0).reshape(*[1] * batch, *places.shape))
    return emit_where(node, is_inside, picked, _padding(node, elsewhere))


def _padding(node: Node, elsewhere: ir.Value | None) -> ir.Value:
    """What stands outside of the diagonals: an array of the output's shape, one number, or 0."""
    if elsewhere is None:
        return node.lowering.builder.constant(node.scalar(0))
    return elsewhere


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
