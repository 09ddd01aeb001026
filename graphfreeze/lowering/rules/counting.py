"""Numbers sorted into bins, and bins counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import KNOWN, PLAIN, Node, rule
from graphfreeze.lowering.rules.gather import emit_scatter


@rule("Bucketize")
def bucketize(node: Node, value: ir.Value) -> ir.Value:
    """How many of the boundaries are not above x."""
    source = node.inputs[0]
    boundaries = np.array(node.attribute("boundaries"), np.float32).reshape(*[1] * source.rank, -1)
    column = node.reshape(node.cast(value, np.float32), [*source.dims, 1])
    reached = node.cast(node.emit("GreaterOrEqual", column, boundaries), np.int32)
    return node.emit("ReduceSum", reached, node.int64([source.rank]), keepdims=0)


@rule("DenseBincount", inputs=(PLAIN, KNOWN, PLAIN))
def dense_bincount(node: Node, value: ir.Value, size: npt.NDArray[Any], weights: ir.Value) -> ir.Value:
    """How often each number occurs in a row (or its weights, or whether it occurs); too large ones are left out."""
    source, weighted = node.inputs[0], node.inputs[2].size > 0
    last, bins = source.rank - 1, int(size)
    rows = source.dims[:-1]
    # What is too large counts in one more bin, which is cut off.
    index = node.emit("Min", node.cast(value, np.int64), np.full((1,) * source.rank, bins, np.int64))
    binary = node.attribute("binary_output", False)
    if binary or not weighted:
        weights = node.emit("Expand", node.scalar(1), node.shape(source))
    zeros = node.emit("Expand", node.scalar(0), node.vector([*rows, bins + 1]))
    reduction = "none" if binary else "add"
    counted = node.emit("ScatterElements", zeros, index, weights, axis=last, reduction=reduction)
    return node.emit("Slice", counted, node.int64([0]), node.int64([bins]), node.int64([last]))


@rule("Bincount", inputs=(PLAIN, KNOWN, PLAIN))
def bincount(node: Node, value: ir.Value, size: npt.NDArray[Any], weights: ir.Value) -> ir.Value:
    """How often each number occurs (or its weights); too large ones are left out."""
    bins, all_of_it = np.array([[int(size)]], np.int64), node.int64([-1])
    index = node.emit("Min", node.cast(node.emit("Reshape", value, node.int64([-1, 1])), np.int64), bins)
    if node.inputs[2].size:
        weights = node.emit("Reshape", weights, all_of_it)
    else:
        weights = node.emit("Expand", node.scalar(1, 1), node.emit("Shape", node.emit("Reshape", value, all_of_it)))
    # What is too large counts in one more bin, which is cut off.
    counted = emit_scatter(node, node.emit("Expand", node.scalar(0, 1), bins[0] + 1), index, weights, "add")
    return node.emit("Slice", counted, node.int64([0]), bins[0], node.int64([0]))


@rule("HistogramFixedWidth", inputs=(PLAIN, PLAIN, KNOWN))
def histogram(node: Node, value: ir.Value, bounds: ir.Value, bins: npt.NDArray[Any]) -> ir.Value:
    """How many numbers are in each of some bins of equal width; the outer bins have what is beyond them, too."""
    emit, count = node.emit, int(bins)
    # In float64, and in this order, TensorFlow's kernel computes it.
    value = node.cast(emit("Reshape", value, node.int64([-1])), np.float64)
    bounds = node.cast(bounds, np.float64)
    low, high = (emit("Gather", bounds, node.int64([side])) for side in (0, 1))
    above = emit("Sub", emit("Min", emit("Max", value, low), high), low)
    width = emit("Sub", *(emit("Div", bound, np.array([count], np.float64)) for bound in (high, low)))
    last = np.array([count - 1], np.float64)
    index = node.cast(emit("Min", emit("Div", above, width), last), np.int64)
    ones = emit("Expand", node.scalar(1), emit("Shape", value))
    zeros = node.lowering.builder.constant(np.zeros(count, node.dtype))
    return emit_scatter(node, zeros, emit("Unsqueeze", index, node.int64([1])), ones, "add")
