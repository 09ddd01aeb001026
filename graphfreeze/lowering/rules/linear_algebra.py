"""Products of matrices and of vectors."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.einsum import Einsum
from graphfreeze.lowering.rule import UNUSED, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("MatMul")
def mat_mul(node: Node, a: ir.Value, b: ir.Value) -> ir.Value:
    """a @ b, either of them transposed."""
    transpose_a, transpose_b = bool(node.attribute("transpose_a")), bool(node.attribute("transpose_b"))
    if not transpose_a and not transpose_b:
        return _product(node, a, b)
    if node.dtype.kind == "f":
        return node.emit("Gemm", a, b, transA=int(transpose_a), transB=int(transpose_b))
    a = node.transpose(a, [1, 0]) if transpose_a else a
    b = node.transpose(b, [1, 0]) if transpose_b else b
    return _product(node, a, b)


@rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def batch_mat_mul(node: Node, a: ir.Value, b: ir.Value) -> ir.Value:
    """a @ b over the last two axes, either of them adjoint; the other axes broadcast."""

    def adjoint(value: ir.Value, rank: int) -> ir.Value:
        return node.transpose(value, [*range(rank - 2), rank - 1, rank - 2])

    first, second = node.inputs
    adjoints = bool(node.attribute("adj_x")), bool(node.attribute("adj_y"))
    if adjoints == (True, False) and first.dims[:-2] == second.dims[:-2] and node.dtype.kind == "f":
        node.outputs[0].product = (first, second)
    a = adjoint(a, node.inputs[0].rank) if adjoints[0] else a
    b = adjoint(b, node.inputs[1].rank) if adjoints[1] else b
    return _product(node, a, b)


def _product(node: Node, a: ir.Value, b: ir.Value) -> ir.Value:
    """a @ b. Whole numbers of few bits, as in quantised layers, are multiplied as 32 bits."""
    narrow, small = {tensor.dtype for tensor in node.inputs[:2]}, (np.dtype(np.int8), np.dtype(np.uint8))
    if narrow <= set(small) and node.dtype == np.int32:
        return node.emit("MatMulInteger", a, b)
    if narrow == {node.dtype} and not (node.dtype.kind in "iu" and node.dtype.itemsize < 4):
        return node.emit("MatMul", a, b)
    wide = np.dtype(np.int32) if node.dtype.kind in "iu" and node.dtype.itemsize < 4 else node.dtype
    product = node.emit("MatMul", node.cast(a, wide), node.cast(b, wide))
    return product if wide == node.dtype else node.cast(product, node.dtype)


@rule("Einsum", inputs=(UNUSED,))
def einsum(node: Node) -> Tensor | ir.Value:
    """A sum of products by equation: Transpose, Reshape and MatMul where they can express it, else ONNX's Einsum."""
    return Einsum.parse(node).lower(node)


@rule("Cross")
def cross(node: Node, a: ir.Value, b: ir.Value) -> ir.Value:
    """The cross products of vectors of three elements: a_j * b_k - a_k * b_j in place i, for (i, j, k) in turn."""

    def turned(value: ir.Value, places: list[int]) -> ir.Value:
        return node.emit("Gather", value, node.int64(places), axis=node.outputs[0].rank - 1)

    second, third = [1, 2, 0], [2, 0, 1]
    forwards = node.emit("Mul", turned(a, second), turned(b, third))
    return node.emit("Sub", forwards, node.emit("Mul", turned(a, third), turned(b, second)))
