"""Sparse arrays, which are places, values and a shape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.picked import picked_size, sized
from graphfreeze.lowering.rule import PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.gather import emit_scatter
from graphfreeze.lowering.rules.segment import as_int64
from graphfreeze.lowering.tensor import Dim, Tensor

_FIRST = np.zeros(1, np.int64)


def _sizes(tensor: Tensor) -> list[Dim]:
    """The shape of a sparse array."""
    if tensor.known is None:
        raise CannotLower(
            "a sparse array whose shape is computed from values; shapes that follow the batch are covered"
        )
    return list(zip(*(known.tolist() for known in tensor.known), strict=True))


@sized("SparseReshape")
def sparse_reshape(node: Node) -> list[Tensor]:
    """Where the values are in another shape of as many elements, and that shape."""
    places, before, after = node.inputs
    emit, sizes, wanted = node.emit, _sizes(before), _sizes(after)
    total = _product(node, sizes)
    for axis, size in enumerate(wanted):
        if size[0] < 0:
            rest = _product(node, [other for index, other in enumerate(wanted) if index != axis])
            wanted[axis] = tuple(one // other for one, other in zip(total, rest, strict=True))
    numbers = emit("Mul", node.value(places), node.vector(_strides(node, sizes)))
    flat = emit("ReduceSum", numbers, node.int64([1]), keepdims=1)
    found = emit("Mod", emit("Div", flat, node.vector(_strides(node, wanted))), node.vector(wanted))
    shape = node.lowering.known([np.array(row, np.int64) for row in zip(*wanted, strict=True)])
    return [node.lowering.tensor(found, np.int64, [places.dim(0), len(wanted)]), shape]


def _product(node: Node, sizes: list[Dim]) -> Dim:
    return tuple(int(np.prod(row)) for row in zip(*sizes, strict=True)) if sizes else node.lowering.dim(1)


def _strides(node: Node, sizes: list[Dim]) -> list[Dim]:
    """How many elements lie between two that are neighbours along each axis."""
    return [_product(node, sizes[axis + 1 :]) for axis in range(len(sizes))]


@sized("SparseFillEmptyRows")
def sparse_fill_empty_rows(node: Node) -> list[Tensor]:
    """The rows in order, a default in each that is empty; which those are, and where each value went."""
    places, values, shape, default = node.inputs
    emit, rows = node.emit, _sizes(shape)[0]
    own = emit("Gather", node.value(places), _FIRST, axis=1)
    base = emit("Expand", _FIRST, node.vector([rows]))
    ones = emit("Expand", np.ones(1, np.int64), node.vector([places.dim(0)]))
    is_empty = emit("Equal", emit("ScatterND", base, own, ones, reduction="add"), _FIRST)
    empty = emit("Transpose", emit("NonZero", is_empty), perm=[1, 0])
    beside = node.int64([0, 0, 0, places.shapes[0][1] - 1])
    together = emit("Concat", node.value(places), emit("Pad", empty, beside), axis=0)
    fill = emit("Expand", node.value(default), emit("Shape", empty, start=0, end=1))
    # Of equal rows the first one stays the first: so ONNX defines it.
    first = emit("Reshape", emit("Gather", together, _FIRST, axis=1), node.int64([-1]))
    count = emit("Shape", first)
    _, order = node.emit_many("TopK", first, count, outputs=2, largest=0, sorted=1)
    found = emit("Gather", together, order, axis=0)
    many = picked_size(node.lowering, found, 0)
    numbers = emit("Range", np.int64(0), emit("Squeeze", count), np.int64(1))
    went = emit("ScatterND", numbers, emit("Unsqueeze", order, node.int64([1])), numbers)
    tensor = node.lowering.tensor
    return [
        tensor(found, np.int64, [many, places.dim(1)]),
        tensor(emit("Gather", emit("Concat", node.value(values), fill, axis=0), order), values.dtype, [many]),
        tensor(is_empty, np.bool_, [rows]),
        tensor(emit("Slice", went, _FIRST, node.vector([places.dim(0)])), np.int64, [places.dim(0)]),
    ]


@rule("SparseFillEmptyRowsGrad")
def sparse_fill_empty_rows_gradient(node: Node, went: ir.Value, dy: ir.Value) -> list[ir.Value]:
    """Each value's gradient from where it went; what is left is the default's."""
    nothing = node.emit("Expand", node.scalar(0, 1), node.emit("Shape", went))
    rest = node.emit("ScatterND", dy, node.emit("Unsqueeze", went, node.int64([1])), nothing)
    return [node.emit("Gather", dy, went), node.emit("ReduceSum", rest, keepdims=0)]


@rule("SparseToDense", inputs=(UNUSED, UNUSED, PLAIN, PLAIN))
def sparse_to_dense(node: Node, values: ir.Value, default: ir.Value) -> ir.Value:
    """An array of the values at their places, and of a default elsewhere."""
    places = node.inputs[0]
    count = places.dim(0) if places.rank else node.lowering.dim(1)
    index = node.reshape(as_int64(node, 0), [count, node.outputs[0].rank])
    if not node.inputs[2].rank:
        values = node.emit("Expand", values, node.vector([count]))
    return node.emit("ScatterND", node.emit("Expand", default, node.shape(node.outputs[0])), index, values)


@rule("SparseTensorDenseMatMul", inputs=(UNUSED, PLAIN, UNUSED, PLAIN))
def sparse_dense_product(node: Node, values: ir.Value, dense: ir.Value) -> ir.Value:
    """The product of a sparse matrix and another: each value v at (i, j) adds v times row j to row i."""
    places, count = as_int64(node, 0), node.inputs[0].dim(0)
    if node.attribute("adjoint_b"):
        dense = node.transpose(dense, [1, 0])
    to, source = (1, 0) if node.attribute("adjoint_a") else (0, 1)
    index = [node.emit("Gather", places, node.int64([column]), axis=1) for column in (to, source)]
    rows = node.emit("Gather", dense, node.reshape(index[1], [count]), axis=0)
    products = node.emit("Mul", rows, node.reshape(values, [count, 1]))
    zeros = node.emit("Expand", node.scalar(0), node.shape(node.outputs[0]))
    return emit_scatter(node, zeros, index[0], products, "add")
