"""The correlation of two arrays of which neither size need be known: Conv, or in float64 a loop over the filter.

onnxruntime has no float64 kernel of Conv on CPUs, and an unknown number of products can only be added up in a loop. It
is slow, and there to be compared with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.loop_body import LoopBody
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["correlate"]


def correlate(
    node: Node,
    x: ir.Value,
    w: ir.Value,
    dims: Sequence[Dim | int],
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> ir.Value:
    """The correlation of x [batch, inputs, *size] with w [outputs, inputs/groups, *kernel], without any padding.

    Args:
        node: The operation that is lowered.
        x: An array.
        w: What slides over it.
        dims: The shape of the result: [batch, outputs, *positions].
        strides: Elements of x between two positions.
        dilations: Elements of x between two of w.
        groups: Into how many independent correlations the channels are split.
    """
    if node.dtype != np.float64:
        return node.emit("Conv", x, w, strides=list(strides), dilations=list(dilations), group=groups)
    return _in_a_loop(node, x, w, dims, strides, dilations, groups)


def _in_a_loop(
    node: Node,
    x: ir.Value,
    w: ir.Value,
    dims: Sequence[Dim | int],
    strides: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> ir.Value:
    """One product for each element of the filter, added up."""
    emit, lowering, int64, rank = node.emit, node.lowering, node.int64, len(strides)
    one, shape, kernel = int64([1]), node.vector(dims), node.emit("Shape", w, start=2)
    outputs, depth, count = dims[1], emit("Shape", w, start=1, end=2), emit("ReduceProd", kernel, keepdims=0)
    assert isinstance(outputs, int)
    weights = emit("Reshape", w, emit("Concat", int64([groups, outputs // groups]), depth, int64([-1]), axis=0))
    zero = emit("Expand", node.scalar(0, len(dims)), shape)
    like = lowering.tensor(zero, node.dtype, dims)
    last = emit("Mul", emit("Sub", emit("Slice", shape, int64([2]), int64([2 + rank])), one), int64(strides))
    body = LoopBody(lowering)
    total = lowering.value(body.state(zero, like))
    start = emit("Mul", _place(node, body.iteration, kernel, rank), int64(dilations))
    end = emit("Add", emit("Add", start, last), one)
    met = emit("Slice", x, start, end, int64(range(2, 2 + rank)), int64(strides))
    columns = emit("Reshape", met, emit("Concat", int64([0, groups]), depth, int64([-1]), axis=0))
    product = emit("MatMul", emit("Gather", weights, body.iteration, axis=3), columns)
    body.set_next(emit("Add", total, emit("Reshape", product, shape)), like)
    goes_on = emit("Less", emit("Add", body.iteration, int64(1)), count)
    return body.finish_loop(emit("Less", int64(0), count), goes_on).states[0]


def _place(node: Node, number: ir.Value, kernel: ir.Value, rank: int) -> ir.Value:
    """Where in the filter the element with that number is, in row-major order."""
    steps = [node.int64([1])]
    for axis in range(rank - 1, 0, -1):
        steps.insert(0, node.emit("Mul", steps[0], node.emit("Gather", kernel, node.int64([axis]), axis=0)))
    return node.emit("Mod", node.emit("Div", number, node.emit("Concat", *steps, axis=0)), kernel)
