"""Rows combined by segment: the gradient of a lookup, above all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where
from graphfreeze.lowering.rules.gather import emit_scatter


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
