"""Rows picked and combined by segment: bags of embeddings, and their gradients."""

from __future__ import annotations

import onnx_ir as ir

from graphfreeze.lowering.picked import picked_size, sized
from graphfreeze.lowering.rule import PLAIN, UNUSED, Node, rule
from graphfreeze.lowering.rules.segment import as_int64, emit_counts, emit_segments, segment_count
from graphfreeze.lowering.tensor import Dim, Tensor

_FORMS = ("", "WithNumSegments", "Grad", "GradV2")
_PICKED, _NUMBERED, _GRADIENTS, _SPARSE_GRADIENTS = (
    tuple(f"SparseSegment{kind}{form}" for kind in ("Sum", "Mean", "SqrtN")) for form in _FORMS
)


@sized(*_PICKED)
def sparse_segment(node: Node) -> list[Tensor]:
    """Per segment the sum of its picked rows, over their number (Mean) or its root (SqrtN); the segments are sorted."""
    data = node.inputs[0]
    count = segment_count(node, as_int64(node, 2))
    output = Tensor(data.dtype, tuple((n, *shape[1:]) for n, shape in zip(count, data.shapes, strict=True)))
    node = Node(node.lowering, node.operation, node.inputs, [output])
    output.values[PLAIN] = _combine(node)
    return [output]


@rule(*_NUMBERED, inputs=(UNUSED,))
def sparse_segment_of_number(node: Node) -> ir.Value:
    """Per segment the sum of its picked rows, over their number (Mean) or its root (SqrtN), of a number of segments."""
    return _combine(node)


@rule(*_GRADIENTS, inputs=(UNUSED,))
def sparse_segment_gradient(node: Node) -> ir.Value:
    """For each row the sum of its segments' gradients, over the segment's number of rows (Mean) or its root (SqrtN)."""
    return emit_segments(node, _share_out(node), as_int64(node, 1))


@sized(*_SPARSE_GRADIENTS)
def sparse_segment_sparse_gradient(node: Node) -> list[Tensor]:
    """Which rows were picked, and for each of these the sum of its segments' gradients in the same shares."""
    dy, indices = node.inputs[:2]
    found, _, places, _ = node.emit_many("Unique", as_int64(node, 1), outputs=4, sorted=1)
    count = picked_size(node.lowering, found, 0)
    output = Tensor(dy.dtype, tuple((n, *shape[1:]) for n, shape in zip(count, dy.shapes, strict=True)))
    node = Node(node.lowering, node.operation, node.inputs, [output])
    output.values[PLAIN] = emit_segments(node, _share_out(node), places)
    return [output, node.lowering.tensor(node.cast(found, indices.dtype), indices.dtype, [count])]


def _combine(node: Node) -> ir.Value:
    """The rows of each segment: inputs are data, indices and segments."""
    rows, ids = node.emit("Gather", node.value(node.inputs[0]), as_int64(node, 1), axis=0), as_int64(node, 2)
    total, shares = emit_segments(node, rows, ids), _shares(node, ids, node.outputs[0].dim(0))
    return total if shares is None else node.emit("Mul", total, shares)


def _share_out(node: Node) -> ir.Value:
    """Each picked row's part of the gradient of its segment: inputs are gradients, indices and segments."""
    dy, ids = node.value(node.inputs[0]), as_int64(node, 2)
    shares = _shares(node, ids, node.inputs[0].dim(0))
    return node.emit("Gather", dy if shares is None else node.emit("Mul", dy, shares), ids, axis=0)


def _shares(node: Node, ids: ir.Value, count: Dim) -> ir.Value | None:
    """What a segment's sum is multiplied by: [count, 1, ...]; None where that is 1."""
    if "Sum" in node.type:
        return None
    counts = node.emit("Max", emit_counts(node, ids, count, node.outputs[0].rank), node.scalar(1))
    return node.emit("Reciprocal", node.emit("Sqrt", counts) if "SqrtN" in node.type else counts)
