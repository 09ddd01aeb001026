"""Elements picked by index, and put by index."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.layouts import stored_layout
from graphfreeze.lowering.rule import KNOWN, PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.tensor import Tensor

__all__ = ["emit_scatter"]

_FEW = 8

# -- picking


@rule("GatherV2", "Gather", inputs=(UNUSED, PLAIN, KNOWN))
def gather(node: Node, indices: ir.Value, axis: npt.NDArray[Any] | None = None) -> ir.Value | Tensor:
    """Slices of an array along an axis, also with batch axes that the indices share."""
    source, index_rank = node.inputs[0], node.inputs[1].rank
    rank = source.rank
    at = int(axis) % rank if axis is not None else 0
    batch = int(node.attribute("batch_dims", 0))
    batch = batch + index_rank if batch < 0 else batch
    if not batch:
        # One index for each slice leaves all axes in place, in whatever layout.
        layout = stored_layout(source) if index_rank == 1 else PLAIN
        output = node.outputs[0]
        value, index, along = node.value(source, layout), _index(node, indices, 1), layout.axis(at, rank)
        if along == rank - 1 and _takes_many(source.shape[at], node.inputs[1].shape):
            taken = _gather_columns(node, value, index, rank)
        else:
            taken = node.emit("Gather", value, index, axis=along)
        output.values[layout] = taken
        return output
    params = node.value(source)
    # GatherND picks along the axis behind the batch axes: the axes between are moved behind it, and back.
    between = list(range(batch, at))
    params = node.transpose(params, [*range(batch), at, *between, *range(at + 1, rank)])
    deep = node.reshape(node.cast(indices, np.int64), [*node.inputs[1].dims, 1])
    picked = node.emit("GatherND", params, deep, batch_dims=batch)
    found = list(range(batch, index_rank))
    moved = list(range(index_rank, index_rank + len(between)))
    return node.transpose(
        picked, [*range(batch), *moved, *found, *range(index_rank + len(between), node.outputs[0].rank)]
    )


def _takes_many(size: int | None, found: tuple[int | None, ...]) -> bool:
    """Whether at least a quarter of an axis is taken, of more than a few elements."""
    return size is not None and len(found) == 1 and found[0] is not None and found[0] >= max(size / 4, _FEW)


def _gather_columns(node: Node, value: ir.Value, index: ir.Value, rank: int) -> ir.Value:
    """Elements along the last axis, picked as rows of the transposed array.

    onnxruntime picks slices one by one: of single elements, one takes ten times as long as to move it there and back.
    """
    rows = node.transpose(value, [rank - 1, *range(rank - 1)])
    return node.transpose(node.emit("Gather", rows, index, axis=0), [*range(1, rank), 0])


def _index(node: Node, indices: ir.Value, position: int) -> ir.Value:
    """Indices in a dtype that ONNX takes."""
    dtype = node.inputs[position].dtype
    return indices if dtype in (np.dtype(np.int32), np.dtype(np.int64)) else node.cast(indices, np.int64)


def _deep_index(node: Node, indices: ir.Value, position: int) -> ir.Value:
    """int64 indices whose last axis is one position in an array."""
    if node.inputs[position].shape[-1] == 0:
        raise CannotLower("indices of depth 0; at least one number per index is covered")
    return indices if node.inputs[position].dtype == np.int64 else node.cast(indices, np.int64)


@rule("GatherNd")
def gather_nd(node: Node, params: ir.Value, indices: ir.Value) -> ir.Value:
    """Slices of an array at positions."""
    return node.emit("GatherND", params, _deep_index(node, indices, 1))


@rule("TopKV2", inputs=(PLAIN, UNUSED))
def top_k(node: Node, value: ir.Value) -> list[ir.Value]:
    """The k largest elements along the last axis and their positions."""
    is_sorted = int(node.attribute("sorted", True))
    k = node.vector([node.outputs[0].dims[-1]])
    values, indices = node.emit_many("TopK", value, k, outputs=2, axis=-1, largest=1, sorted=is_sorted)
    return [values, node.cast(indices, node.outputs[1].dtype)]


@rule("InTopKV2", inputs=(PLAIN, PLAIN, KNOWN))
def in_top_k(node: Node, predictions: ir.Value, targets: ir.Value, k: npt.NDArray[Any]) -> ir.Value:
    """Whether the target's prediction is among the k largest of its row; not so where the target is no class."""
    rows, zero = node.inputs[1].dim(0), node.int64([0])
    target = node.cast(targets, np.int64)
    below = node.emit("Less", target, node.vector([node.inputs[0].dims[1]]))
    is_class = node.emit("And", node.emit("GreaterOrEqual", target, zero), below)
    target = node.reshape(node.emit("Where", is_class, target, zero), [rows, 1])
    own = node.emit("GatherElements", predictions, target, axis=1)
    larger = node.cast(node.emit("Greater", predictions, own), np.int32)
    count = node.emit("ReduceSum", larger, node.int64([1]), keepdims=0)
    return node.emit("And", is_class, node.emit("Less", count, np.array([int(k)], np.int32)))


@rule("OneHot", inputs=(PLAIN, KNOWN, PLAIN, PLAIN))
def one_hot(node: Node, indices: ir.Value, depth: npt.NDArray[Any], on: ir.Value, off: ir.Value) -> ir.Value:
    """`on` at each index along a new axis, `off` elsewhere; an index out of range gives no `on`."""
    output, source = node.outputs[0], node.inputs[0]
    axis = int(node.attribute("axis", -1)) % output.rank
    dims = source.dims
    dims.insert(axis, (1,) * len(node.lowering.samples))
    numbers = np.arange(int(depth)).astype(source.dtype).reshape([-1, *[1] * (output.rank - axis - 1)])
    hit = node.emit("Equal", node.reshape(indices, dims), numbers.reshape([1] * axis + list(numbers.shape)))
    ones, zeros = (tensor.constant for tensor in node.inputs[2:4])
    if ones is not None and zeros is not None and ones == 1 and zeros == 0:
        return hit if node.dtype == np.bool_ else node.cast(hit, node.dtype)
    on, off = (node.reshape(value, [1] * output.rank) for value in (on, off))
    return emit_where(node, hit, on, off)


# -- putting


def emit_scatter(node: Node, base: ir.Value, index: ir.Value, updates: ir.Value, reduction: str) -> ir.Value:
    """ScatterND with a reduction, which onnxruntime's CPU kernel does not do in float16."""
    if node.dtype != np.float16:
        return node.emit("ScatterND", base, index, updates, reduction=reduction)
    wide = [node.cast(value, np.float32) for value in (base, updates)]
    return node.cast(node.emit("ScatterND", wide[0], index, wide[1], reduction=reduction), node.dtype)


def _zeros(node: Node) -> ir.Value:
    return node.emit("Expand", node.scalar(0), node.shape(node.outputs[0]))


@rule("ScatterNd", inputs=(PLAIN, PLAIN, UNUSED))
def scatter_nd(node: Node, indices: ir.Value, updates: ir.Value) -> ir.Value:
    """Zeros with the updates added at positions."""
    return emit_scatter(node, _zeros(node), _deep_index(node, indices, 0), updates, "add")


@rule("TensorScatterUpdate")
def tensor_scatter_update(node: Node, array: ir.Value, indices: ir.Value, updates: ir.Value) -> ir.Value:
    """An array with the updates put at positions."""
    return node.emit("ScatterND", array, _deep_index(node, indices, 1), updates)


@rule("TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin")
def tensor_scatter(node: Node, array: ir.Value, indices: ir.Value, updates: ir.Value) -> ir.Value:
    """An array with the updates added to, taken from, or compared with what stands at positions."""
    reduction = {"Add": "add", "Sub": "add", "Max": "max", "Min": "min"}[node.type.removeprefix("TensorScatter")]
    if node.type == "TensorScatterSub":
        updates = node.emit("Neg", updates)
    return emit_scatter(node, array, _deep_index(node, indices, 1), updates, reduction)
