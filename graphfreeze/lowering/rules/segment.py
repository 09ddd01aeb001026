"""Rows combined by segment: the gradient of a lookup, above all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.filled_rows import filled_rows
from graphfreeze.lowering.picked import picked_number, sized
from graphfreeze.lowering.rule import PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.rules.gather import emit_scatter
from graphfreeze.lowering.tensor import Dim, Tensor

__all__ = ["as_int64", "emit_counts", "emit_segments", "segment_count"]


@rule(
    "UnsortedSegmentSum",
    "UnsortedSegmentProd",
    "UnsortedSegmentMax",
    "UnsortedSegmentMin",
    inputs=(PLAIN, PLAIN, UNUSED),
)
def unsorted_segment(node: Node, data: ir.Value, ids: ir.Value) -> ir.Value:
    """Per segment the sum, product, maximum or minimum of its rows; rows with a negative number are left out."""
    lowest, highest = _limits(node.dtype)
    kind = node.type.removeprefix("UnsortedSegment")
    reduction, start = {"Sum": ("add", 0), "Prod": ("mul", 1), "Max": ("max", lowest), "Min": ("min", highest)}[kind]
    output, tensor = node.outputs[0], node.inputs[1]
    count = tuple(int(np.prod(shape, dtype=np.int64)) for shape in tensor.shapes)
    rest = output.dims[1:]
    rows = node.reshape(data, [count, *rest])
    index = node.reshape(node.cast(ids, np.int64), [count, 1])
    # A negative index would count from the end: it is moved to segment 0, with a row that changes nothing there.
    neutral = node.scalar(start, output.rank)
    known = tensor.constant
    if known is None or np.any(known < 0):
        zero = np.zeros((1, 1), np.int64)
        negative = node.reshape(node.emit("Less", index, zero), [count, *[1] * len(rest)])
        rows = emit_where(node, negative, node.lowering.builder.constant(neutral), rows)
        index = node.emit("Max", index, zero)
    base = node.emit("Expand", neutral, node.shape(output))
    return emit_scatter(node, base, index, rows, reduction)


def _limits(dtype: np.dtype[np.generic]) -> tuple[float, float]:
    if dtype.kind == "f":
        info = np.finfo(dtype.name)
        return float(info.min), float(info.max)
    integers = np.iinfo(dtype.name)
    return integers.min, integers.max


# -- segments in order: the last one says how many there are


def as_int64(node: Node, position: int) -> ir.Value:
    """An input of whole numbers, as int64."""
    tensor = node.inputs[position]
    value = node.value(tensor)
    return value if tensor.dtype == np.int64 else node.cast(value, np.int64)


def segment_count(node: Node, ids: ir.Value) -> Dim:
    """How many segments the sorted numbers of the last input, as int64, name: one more than the last one."""
    known = node.inputs[-1].constant
    if known is not None:
        return node.lowering.dim(int(known[-1]) + 1 if known.size else 0)
    rows = filled_rows(node.lowering, node.operation.inputs[-1])
    if rows is not None:
        return rows
    last = node.emit("Gather", node.emit("Concat", np.array([-1], np.int64), ids, axis=0), np.array([-1], np.int64))
    return picked_number(node.lowering, node.emit("Add", last, np.array([1], np.int64)))


def emit_segments(node: Node, rows: ir.Value, ids: ir.Value, reduction: str = "add", start: float = 0) -> ir.Value:
    """The rows of each segment combined, in the shape of the node's output; of int64 ids."""
    base = node.emit("Expand", node.scalar(start), node.shape(node.outputs[0]))
    return emit_scatter(node, base, node.emit("Unsqueeze", ids, node.int64([1])), rows, reduction)


def emit_counts(node: Node, ids: ir.Value, count: Dim, rank: int) -> ir.Value:
    """How many rows each segment has, in the dtype of the node's output: [count, 1, ...]."""
    base = node.emit("Expand", node.scalar(0, 1), node.vector([count]))
    ones = node.emit("Expand", node.scalar(1, 1), node.emit("Shape", ids))
    counts = emit_scatter(node, base, node.emit("Unsqueeze", ids, node.int64([1])), ones, "add")
    return node.reshape(counts, [count, *[1] * (rank - 1)])


@sized("SegmentSum", "SegmentMean", "SegmentProd", "SegmentMax", "SegmentMin")
def segment(node: Node) -> list[Tensor]:
    """Per segment the sum, mean, product, maximum or minimum of its rows; the numbers are sorted."""
    data = node.inputs[0]
    rows, ids = node.value(data), as_int64(node, 1)
    count = segment_count(node, ids)
    output = Tensor(data.dtype, tuple((n, *shape[1:]) for n, shape in zip(count, data.shapes, strict=True)))
    node = Node(node.lowering, node.operation, node.inputs, [output])
    kind = node.type.removeprefix("Segment")
    lowest, highest = _limits(node.dtype)
    reduction, start = {"Prod": ("mul", 1), "Max": ("max", lowest), "Min": ("min", highest)}.get(kind, ("add", 0))
    combined = emit_segments(node, rows, ids, reduction, start)
    if kind not in ("Sum", "Prod"):
        counts = emit_counts(node, ids, count, output.rank)
        if kind == "Mean":
            combined = node.emit("Div", combined, node.emit("Max", counts, node.scalar(1)))
        else:  # what no row belongs to is 0
            zero = node.lowering.builder.constant(node.scalar(0))
            combined = emit_where(node, node.emit("Equal", counts, zero), zero, combined)
    output.values[PLAIN] = combined
    return [output]
