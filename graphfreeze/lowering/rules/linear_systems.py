"""Systems of linear equations, by elimination with pivots: for the small matrices of geometry."""

from __future__ import annotations

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


def _eliminate(node: Node, matrix: ir.Value, right: ir.Value) -> ir.Value:
    """After Gauss and Jordan; rows stay where they are, and which one each column chose is noted."""
    size, rank = node.inputs[0].shape[-1], node.inputs[0].rank
    if size is None or size > _LARGEST:
        raise CannotLower(f"matrices of {size or 'any'} rows; up to {_LARGEST} are covered")
    emit, int64 = node.emit, node.int64
    one = node.scalar(1, rank)
    rows = emit("Concat", matrix, right, axis=rank - 1)
    free = node.emit("Expand", one, node.vector([*node.inputs[0].dims[:-1], 1]))
    numbers = np.arange(size, dtype=np.int64).reshape((1,) * (rank - 2) + (size, 1))
    chosen = []
    for column in range(size):
        entries = emit("Slice", rows, int64([column]), int64([column + 1]), int64([rank - 1]))
        # Of the rows that no column has chosen yet the one with the largest entry: it divides the others.
        candidates = emit("Sub", emit("Mul", emit("Abs", entries), free), emit("Sub", one, free))
        pivot = emit("ArgMax", candidates, axis=rank - 2, keepdims=1)
        is_pivot = node.cast(emit("Equal", pivot, numbers), node.dtype)
        row = emit("ReduceSum", emit("Mul", rows, is_pivot), int64([rank - 2]), keepdims=1)
        row = emit("Div", row, emit("Slice", row, int64([column]), int64([column + 1]), int64([rank - 1])))
        others = emit("Sub", rows, emit("Mul", emit("Mul", entries, emit("Sub", one, is_pivot)), row))
        rows = emit("Add", emit("Mul", others, emit("Sub", one, is_pivot)), emit("Mul", row, is_pivot))
        free = emit("Sub", free, is_pivot)
        chosen.append(is_pivot)
    end = node.inputs[0].shapes[0][-1] + node.outputs[0].shapes[0][-1]
    solved = emit("Slice", rows, int64([size]), int64([end]), int64([rank - 1]))
    order = emit("Concat", *chosen, axis=rank - 1)
    return emit("MatMul", node.transpose(order, [*range(rank - 2), rank - 1, rank - 2]), solved)
