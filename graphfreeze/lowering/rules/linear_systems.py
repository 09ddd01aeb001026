"""Systems of linear equations, determinants and Cholesky's factors, column by column: for small matrices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node, rule

_LARGEST = 32


@rule("MatrixSolve")
def solve(node: Node, matrix: ir.Value, right: ir.Value) -> ir.Value:
    """The x of matrix x = right."""
    rank = node.inputs[0].rank
    if node.attribute("adjoint", False):
        matrix = node.transpose(matrix, [*range(rank - 2), rank - 1, rank - 2])
    return _eliminate(node, matrix, right)


@rule("MatrixInverse")
def inverse(node: Node, matrix: ir.Value) -> ir.Value:
    """The inverse of a matrix."""
    source = node.inputs[0]
    if node.attribute("adjoint", False):
        matrix = node.transpose(matrix, [*range(source.rank - 2), source.rank - 1, source.rank - 2])
    identity = np.eye(source.shapes[0][-1], dtype=node.dtype).reshape((1,) * (source.rank - 2) + source.shapes[0][-2:])
    return _eliminate(node, matrix, node.emit("Expand", identity, node.shape(source)))


@rule("MatrixTriangularSolve")
def triangular_solve(node: Node, matrix: ir.Value, right: ir.Value) -> ir.Value:
    """The x of matrix x = right, where the matrix is triangular: what is on the other side is not looked at."""
    source, output = node.inputs[0], node.outputs[0]
    if source.dims[:-2] != output.dims[:-2]:
        raise CannotLower("fewer matrices than right sides; as many are covered")
    if node.inputs[1].dims != output.dims:
        right = node.emit("Expand", right, node.shape(output))
    matrix = node.emit("Trilu", matrix, upper=int(not node.attribute("lower", True)))
    if node.attribute("adjoint", False):
        matrix = node.transpose(matrix, [*range(source.rank - 2), source.rank - 1, source.rank - 2])
    return _eliminate(node, matrix, right)


@rule("MatrixDeterminant")
def determinant(node: Node, matrix: ir.Value) -> ir.Value:
    """The determinant: the product of the pivots."""
    found = _reduce(node, matrix, may_be_singular=True)
    product = node.emit("ReduceProd", found.pivots, node.int64([-1]), keepdims=0)
    return node.emit("Mul", product, found.sign)


@rule("LogMatrixDeterminant")
def log_determinant(node: Node, matrix: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The sign of the determinant, and the logarithm of its size."""
    found, last = _reduce(node, matrix, may_be_singular=True), node.int64([-1])
    signs = node.emit("ReduceProd", node.emit("Sign", found.pivots), last, keepdims=0)
    logarithms = node.emit("Log", node.emit("Abs", found.pivots))
    return node.emit("Mul", signs, found.sign), node.emit("ReduceSum", logarithms, last, keepdims=0)


@rule("Cholesky")
def cholesky(node: Node, matrix: ir.Value) -> ir.Value:
    """The lower triangular factor of a symmetric matrix, of which the lower half is looked at."""
    size, rank = _size(node), node.inputs[0].rank
    emit, int64 = node.emit, node.int64
    done: ir.Value | None = None
    for column in range(size):
        bounds = int64([column]), int64([column + 1])
        entries = emit("Slice", matrix, *bounds, int64([rank - 1]))
        if done is not None:
            row = emit("Slice", done, *bounds, int64([rank - 2]))
            row = node.transpose(row, [*range(rank - 2), rank - 1, rank - 2])
            entries = emit("Sub", entries, emit("MatMul", done, row))
        root = emit("Sqrt", emit("Slice", entries, *bounds, int64([rank - 2])))
        below = (np.arange(size) >= column).astype(node.dtype).reshape((1,) * (rank - 2) + (size, 1))
        made = emit("Mul", emit("Div", entries, root), below)
        done = made if done is None else emit("Concat", done, made, axis=rank - 1)
    assert done is not None
    return done


@dataclass(frozen=True, slots=True)
class _Reduced:
    """Rows after Gauss and Jordan, which stay where they are.

    Attributes:
        rows: They are unit vectors in the columns of the matrix.
        order: Which row each column chose: ones in a matrix of zeros.
        pivots: What each row that was chosen was divided by, one behind the other.
        sign: That of the order.
    """

    rows: ir.Value
    order: ir.Value
    pivots: ir.Value
    sign: ir.Value


def _size(node: Node) -> int:
    size = node.inputs[0].shape[-1]
    if not size or size > _LARGEST:
        raise CannotLower(f"matrices of {size or 'any'} rows; up to {_LARGEST} are covered")
    return size


def _eliminate(node: Node, matrix: ir.Value, right: ir.Value) -> ir.Value:
    size, rank = _size(node), node.inputs[0].rank
    reduced = _reduce(node, node.emit("Concat", matrix, right, axis=rank - 1))
    end, int64 = size + node.outputs[0].shapes[0][-1], node.int64
    solved = node.emit("Slice", reduced.rows, int64([size]), int64([end]), int64([rank - 1]))
    return node.emit("MatMul", node.transpose(reduced.order, [*range(rank - 2), rank - 1, rank - 2]), solved)


def _reduce(node: Node, rows: ir.Value, *, may_be_singular: bool = False) -> _Reduced:
    """Let every column of the matrix choose a row. In a singular matrix one is left whose pivot is zero."""
    size, rank = _size(node), node.inputs[0].rank
    emit, int64 = node.emit, node.int64
    one = node.scalar(1, rank)
    free = node.emit("Expand", one, node.vector([*node.inputs[0].dims[:-1], 1]))
    numbers = np.arange(size, dtype=np.int64).reshape((1,) * (rank - 2) + (size, 1))
    chosen, places, pivots = [], [], []
    for column in range(size):
        bounds = int64([column]), int64([column + 1])
        entries = emit("Slice", rows, *bounds, int64([rank - 1]))
        # Of the rows that no column has chosen yet the one with the largest entry: it divides the others.
        candidates = emit("Sub", emit("Mul", emit("Abs", entries), free), emit("Sub", one, free))
        place = emit("ArgMax", candidates, axis=rank - 2, keepdims=1)
        is_pivot = node.cast(emit("Equal", place, numbers), node.dtype)
        row = emit("ReduceSum", emit("Mul", rows, is_pivot), int64([rank - 2]), keepdims=1)
        pivot = emit("Slice", row, *bounds, int64([rank - 1]))
        if may_be_singular:
            is_zero = emit("Equal", pivot, node.scalar(0, rank))
            row = emit("Div", row, emit("Add", pivot, node.cast(is_zero, node.dtype)))
        else:
            row = emit("Div", row, pivot)
        others = emit("Sub", rows, emit("Mul", emit("Mul", entries, emit("Sub", one, is_pivot)), row))
        rows = emit("Add", emit("Mul", others, emit("Sub", one, is_pivot)), emit("Mul", row, is_pivot))
        free = emit("Sub", free, is_pivot)
        chosen.append(is_pivot)
        places.append(place)
        pivots.append(pivot)
    order = emit("Concat", *chosen, axis=rank - 1)
    flat = [
        node.reshape(emit("Concat", *found, axis=rank - 1), [*node.inputs[0].dims[:-2], size])
        for found in (pivots, places)
    ]
    return _Reduced(rows, order, flat[0], _sign(node, flat[1], size))


def _sign(node: Node, places: ir.Value, size: int) -> ir.Value:
    """Of an order: -1 where an odd number of pairs are turned round."""
    dims, int64 = node.inputs[0].dims[:-2], node.int64
    later, earlier = node.reshape(places, [*dims, 1, size]), node.reshape(places, [*dims, size, 1])
    turned = node.cast(node.emit("Greater", earlier, later), np.int64)
    pairs = np.triu(np.ones((size, size), np.int64), 1).reshape((1,) * len(dims) + (size, size))
    count = node.emit("ReduceSum", node.emit("Mul", turned, pairs), int64([-2, -1]), keepdims=0)
    odd = node.cast(node.emit("Mod", count, np.int64(2)), node.dtype)
    rank = len(dims)
    return node.emit("Sub", node.scalar(1, rank), node.emit("Mul", node.scalar(2, rank), odd))
