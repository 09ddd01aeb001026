"""Rows of different lengths, one after the other in a flat array: ranges, rows picked, and rows padded."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.picked import picked_number, sized
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.rules.segment import as_int64
from graphfreeze.lowering.slices import Span, emit_slice
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

_ZERO, _ONE = np.zeros(1, np.int64), np.ones(1, np.int64)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of given lengths one after the other.

    Attributes:
        splits: Where each row starts, and where the last one ends: int64.
        total: How many elements all rows have.
        rows: The row of each element: int64.
        places: Where in its row each element is: int64.
    """

    splits: ir.Value
    total: Dim
    rows: ir.Value
    places: ir.Value


def _emit_splits(node: Node, lengths: ir.Value) -> ir.Value:
    return node.emit("Concat", _ZERO, node.emit("CumSum", lengths, np.int64(0)), axis=0)


def _emit_rows(node: Node, lengths: ir.Value) -> _Rows:
    splits = _emit_splits(node, lengths)
    last = node.emit("Gather", splits, np.array([-1], np.int64))
    total = picked_number(node.lowering, last)
    # Each row but the first starts with a mark; a row's number is how many marks there were.
    starts = node.emit("Slice", splits, _ONE, node.int64([np.iinfo(np.int64).max]), _ZERO)
    marks = node.emit("Expand", _ZERO, node.emit("Add", last, _ONE))
    ones = node.emit("Expand", _ONE, node.emit("Shape", starts))
    marks = node.emit("ScatterND", marks, node.emit("Unsqueeze", starts, _ONE), ones, reduction="add")
    rows = node.emit("Slice", node.emit("CumSum", marks, np.int64(0)), _ZERO, last, _ZERO)
    numbers = node.emit("Range", np.int64(0), node.emit("Squeeze", last), np.int64(1))
    return _Rows(splits, total, rows, node.emit("Sub", numbers, node.emit("Gather", splits, rows)))


def _emit_lengths(node: Node, starts: ir.Value, ends: ir.Value) -> ir.Value:
    return node.emit("Max", node.emit("Sub", ends, starts), _ZERO)


def _as_int64(node: Node, value: ir.Value, dtype: np.dtype[np.generic]) -> ir.Value:
    return value if dtype == np.int64 else node.cast(value, np.int64)


# -- ranges


@sized("RaggedRange")
def ragged_range(node: Node) -> list[Tensor]:
    """For each row the numbers from its start to its limit in its steps, and where the rows end."""
    dtype = node.inputs[0].dtype
    count = next((tensor.dim(0) for tensor in node.inputs if tensor.rank), node.lowering.dim(1))
    starts, limits, deltas = (_column(node, tensor, count) for tensor in node.inputs)
    step = node.inputs[2].constant
    if dtype.kind == "f":
        ratio = node.emit("Ceil", node.emit("Div", node.emit("Sub", limits, starts), deltas))
        lengths = node.emit("Max", node.cast(ratio, np.int64), _ZERO)
    elif step is not None and (step == 1).all():
        lengths = _emit_lengths(node, *(_as_int64(node, value, dtype) for value in (starts, limits)))
    else:
        wide = [_as_int64(node, value, dtype) for value in (starts, limits, deltas)]
        span = node.emit("Mul", node.emit("Sub", wide[1], wide[0]), node.emit("Sign", wide[2]))
        size = node.emit("Abs", wide[2])
        rounded_up = node.emit("Div", node.emit("Add", span, node.emit("Sub", size, _ONE)), size)
        lengths = node.emit("Max", rounded_up, _ZERO)
    rows = _emit_rows(node, lengths)
    own = [node.emit("Gather", value, rows.rows) for value in (starts, deltas)]
    places = rows.places if dtype == np.int64 else node.cast(rows.places, dtype)
    numbers = node.emit("Add", own[0], node.emit("Mul", places, own[1]))
    return [
        _splits(node, rows.splits, "Tsplits", plus(count, 1)),
        node.lowering.tensor(numbers, dtype, [rows.total]),
    ]


def _column(node: Node, tensor: Tensor, count: Dim) -> ir.Value:
    value = node.value(tensor)
    return value if tensor.rank else node.emit("Expand", value, node.vector([count]))


def _splits(node: Node, splits: ir.Value, attribute: str, count: Dim) -> Tensor:
    dtype = np.dtype(node.attribute(attribute).as_numpy_dtype)
    return node.lowering.tensor(splits if dtype == np.int64 else node.cast(splits, dtype), dtype, [count])


# -- rows picked


@sized("RaggedGather")
def ragged_gather(node: Node) -> list[Tensor]:
    """Rows of a ragged array, picked by number: where the rows found end, and what is in them."""
    *partitions, values, indices = node.inputs
    count = tuple(int(np.prod(shape, dtype=np.int64)) for shape in indices.shapes)
    flat = node.value(indices)
    flat = flat if indices.rank == 1 else node.reshape(flat, [count])
    outputs = _regular_splits(node, indices)
    combined = places = None
    for partition in partitions:
        splits, dtype = node.value(partition), partition.dtype
        # What lies inside of a picked row lies side by side, however deep the rows are nested.
        combined = splits if combined is None else node.emit("Gather", splits, combined, axis=0)
        dims = [partitions[0].dim(0)]
        behind = emit_slice(node, combined, {0: _without_first(dims[0])}, dims, Layout.PLAIN)
        bounds = [node.emit("Gather", value, flat, axis=0) for value in (combined, behind)]
        starts, ends = (_as_int64(node, value, dtype) for value in bounds)
        lengths = own = _emit_lengths(node, starts, ends)
        if places is not None:
            own = node.emit(
                "Sub", node.emit("Gather", splits, node.emit("Add", places, _ONE)), _at(node, splits, places)
            )
            own = _as_int64(node, own, dtype)
        outputs.append(_splits(node, _emit_splits(node, own), "Tsplits", plus(count, 1)))
        rows = _emit_rows(node, lengths)
        places, count = node.emit("Add", _at(node, starts, rows.rows), rows.places), rows.total
    found = node.emit("Gather", node.value(values), places, axis=0)
    return [*outputs, node.lowering.tensor(found, values.dtype, [count, *values.dims[1:]])]


def _at(node: Node, values: ir.Value, places: ir.Value) -> ir.Value:
    return node.emit("Gather", values, places)


def _without_first(size: Dim) -> Span:
    return Span((1,) * len(size), plus(size, -1), 1)


def _regular_splits(node: Node, indices: Tensor) -> list[Tensor]:
    """Where the rows of the outer axes end, which the indices give their shape."""
    outputs, before = [], node.lowering.dim(1)
    for size, inner in pairwise(indices.dims):
        before = tuple(one * other for one, other in zip(before, size, strict=True))
        last = node.emit("Squeeze", node.vector([plus(before, 1)]))
        numbers = node.emit("Range", np.int64(0), last, np.int64(1))
        outputs.append(_splits(node, node.emit("Mul", numbers, node.vector([inner])), "Tsplits", plus(before, 1)))
    return outputs


# -- rows padded


@dataclass(frozen=True, slots=True)
class _Partition:
    """How elements are parted into rows.

    Attributes:
        count: How many rows there are.
        starts: The first element of each row: int64.
        lengths: How many elements each row has: int64.
    """

    count: Dim
    starts: ir.Value
    lengths: ir.Value


@sized("RaggedTensorToTensor")
def ragged_to_dense(node: Node) -> list[Tensor]:
    """Rows of different lengths as an array: cut, or padded with a default, to the longest or to a given length."""
    _, values, default, *_ = node.inputs
    partitions = _partitions(node)
    wanted = _wanted(node, len(partitions) + 1)
    counts = [*(partition.count for partition in partitions), values.dim(0)]
    dims = [wanted[0] or counts[0]]
    # Each place in the array takes an element; those beyond the end of a row take one that comes after all others.
    index = node.emit("Min", _range(node, dims[0]), node.vector([counts[0]]))
    for partition, size, beyond in zip(partitions, wanted[1:], counts[1:], strict=True):
        starts, lengths = (
            node.emit("Gather", node.emit("Concat", numbers, _ZERO, axis=0), index)
            for numbers in (partition.starts, partition.lengths)
        )
        if size is None:
            longest = node.emit("ReduceMax", node.emit("Concat", partition.lengths, _ZERO, axis=0), keepdims=1)
            size = picked_number(node.lowering, longest)
        dims.append(size)
        places = _range(node, size)
        starts, lengths = (node.emit("Unsqueeze", value, np.array([-1])) for value in (starts, lengths))
        inside = node.emit("Less", places, lengths)
        index = node.emit("Where", inside, node.emit("Add", starts, places), node.vector([beyond]))
    inner = values.dims[1:]
    last = node.emit("Expand", node.value(default), node.vector([1, *inner]))
    table = node.emit("Concat", node.value(values), last, axis=0)
    return [node.lowering.tensor(node.emit("Gather", table, index, axis=0), values.dtype, [*dims, *inner])]


def _range(node: Node, size: Dim) -> ir.Value:
    return node.emit("Range", np.int64(0), node.emit("Squeeze", node.vector([size])), np.int64(1))


def _wanted(node: Node, count: int) -> list[Dim | None]:
    """The first sizes of the array that are given."""
    shape = node.inputs[0].known
    if shape is None:
        raise CannotLower("a shape that is computed at run time; constant shapes are covered")
    if not shape[0].ndim:
        return [None] * count
    columns = list(zip(*(row.tolist() for row in shape), strict=True))[:count]
    return [None if column[0] < 0 else column for column in columns]


def _partitions(node: Node) -> list[_Partition]:
    types, tensors = node.attribute("row_partition_types"), list(enumerate(node.inputs))[3:]
    found: list[_Partition] = []
    count: Dim | None = None
    for kind, (position, tensor) in zip(types, tensors, strict=True):
        match kind:
            case "FIRST_DIM_SIZE":
                count = tensor.number or picked_number(node.lowering, node.reshape(as_int64(node, position), [1]))
            case "ROW_SPLITS":
                found.append(_by_splits(node, as_int64(node, position), plus(tensor.dim(0), -1)))
            case "VALUE_ROWIDS" if count is not None:
                found.append(_by_rows(node, as_int64(node, position), count))
                count = tensor.dim(0)
            case _:
                raise CannotLower(f"rows parted as {kind}; parted by splits or by the numbers of rows they are covered")
    return found


def _by_splits(node: Node, splits: ir.Value, count: Dim) -> _Partition:
    dims = [plus(count, 1)]
    starts = emit_slice(node, splits, {0: Span((0,) * len(count), count, 1)}, dims, Layout.PLAIN)
    ends = emit_slice(node, splits, {0: _without_first(dims[0])}, dims, Layout.PLAIN)
    return _Partition(count, starts, node.emit("Sub", ends, starts))


def _by_rows(node: Node, ids: ir.Value, count: Dim) -> _Partition:
    base = node.emit("Expand", _ZERO, node.vector([count]))
    ones = node.emit("Expand", _ONE, node.emit("Shape", ids))
    lengths = node.emit("ScatterND", base, node.emit("Unsqueeze", ids, _ONE), ones, reduction="add")
    return _Partition(count, node.emit("CumSum", lengths, np.int64(0), exclusive=1), lengths)
