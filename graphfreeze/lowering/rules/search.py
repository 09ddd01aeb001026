"""Places in sorted rows."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node, rule


@rule("LowerBound", "UpperBound")
def bound(node: Node, rows: ir.Value, sought: ir.Value) -> ir.Value:
    """How many elements of a sorted row are below each number (or not above it), by halving the row."""
    size = node.inputs[0].shape[1]
    if size is None:
        followed = node.lowering.sizes.origin(node.inputs[0].dim(1))
        raise CannotLower(f"rows whose length follows {followed}; rows of a fixed length are covered")
    emit, shape = node.emit, node.shape(node.outputs[0])
    comparison = "Less" if node.type == "LowerBound" else "LessOrEqual"
    count = emit("Expand", np.zeros((1, 1), np.int64), shape)
    for step in reversed([1 << bit for bit in range(size.bit_length())]):
        further = emit("Add", count, np.full((1, 1), step, np.int64))
        last = emit("Sub", emit("Min", further, np.full((1, 1), size, np.int64)), np.ones((1, 1), np.int64))
        is_below = emit(comparison, emit("GatherElements", rows, last, axis=1), sought)
        is_inside = emit("LessOrEqual", further, np.full((1, 1), size, np.int64))
        count = emit("Where", emit("And", is_below, is_inside), further, count)
    return node.cast(count, node.dtype)
