"""Computes in float32 what TensorFlow computes in bfloat16, and rounds each result to bfloat16.

onnxruntime's CPU kernels do not know bfloat16, and in opset 18 neither does ONNX's convolution. Kernels that do compute
in float32 and round what they return, which is what a graph says when it casts to bfloat16 and back.
"""

from __future__ import annotations

import tensorflow as tf

from graphfreeze.lowering.retyping import Retyping
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["round_to_bfloat16"]

_SINGLE = Retyping({tf.bfloat16: tf.float32})

_OWN_BITS = frozenset({"Bitcast", "StatelessRandomUniform", "StatelessRandomUniformV2"})
"""What reads or draws the bits of its dtype: it stays in bfloat16."""

# fmt: off
_EXACT = frozenset(
    {
        "Abs", "BatchToSpaceND", "BroadcastTo", "ConcatV2", "Const", "DepthToSpace", "ExpandDims", "Fill", "GatherNd",
        "GatherV2", "Identity", "IdentityN", "Max", "MaxPool", "MaxPool3D", "Maximum", "Min", "Minimum", "MirrorPad",
        "Neg", "OnesLike", "Pack", "Pad", "PadV2", "Relu", "ReluGrad", "Relu6", "Relu6Grad", "Reshape", "ReverseV2",
        "Roll", "Select", "SelectV2", "Sign", "Slice", "SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Squeeze",
        "StopGradient", "StridedSlice", "StridedSliceGrad", "Tile", "Transpose", "Unpack", "ZerosLike",
    }
)
"""What returns numbers that it was given: of bfloat16 numbers, bfloat16 numbers."""
# fmt: on


def round_to_bfloat16(graph: Graph) -> Graph:
    """The same graph with float32 inside where it has bfloat16; the given one stays as it is.

    Inputs and outputs keep their dtypes.
    """
    if not any(edge.dtype == tf.bfloat16 for o in graph.walk() for edge in (*o.inputs, *o.outputs)):
        return graph
    return _widen(graph, is_body=False)


def _widen(graph: Graph, *, is_body: bool) -> Graph:
    made = Graph()
    edges: dict[int, Edge] = {}
    for edge in graph.inputs:
        entry = Edge(edge.name, _SINGLE.dtype(edge.dtype) if is_body else edge.dtype, edge.shape)
        made.inputs.append(entry)
        edges[id(edge)] = _SINGLE.cast(made, entry, _SINGLE.dtype(edge.dtype), f"{edge.name}/float32")
    for operation in graph.operations:
        inputs = [edges[id(edge)] for edge in operation.inputs]
        if operation.type in _OWN_BITS:
            outputs = _keep(made, operation, inputs)
        else:
            outputs = _widen_operation(made, operation, inputs)
        edges.update(zip(map(id, operation.outputs), outputs, strict=True))
    results = [edges[id(edge)] for edge in graph.outputs]
    if not is_body:
        wanted = zip(results, graph.outputs, strict=True)
        results = [_SINGLE.cast(made, found, edge.dtype, f"{edge.name}/bfloat16") for found, edge in wanted]
    made.outputs = results
    return made


def _widen_operation(graph: Graph, operation: Operation, inputs: list[Edge]) -> list[Edge]:
    """The operation in float32, with what it computes rounded."""
    widened = Operation(operation.type, operation.name, inputs)
    widened.attributes = {name: _SINGLE.attribute(value) for name, value in operation.attributes.items()}
    widened.bodies = {name: _widen(body, is_body=True) for name, body in operation.bodies.items()}
    widened.outputs = [Edge(e.name, _SINGLE.dtype(e.dtype), e.shape, widened) for e in operation.outputs]
    graph.operations.append(widened)
    if operation.type in _EXACT or operation.bodies:
        return widened.outputs
    return [
        _round(graph, made) if edge.dtype == tf.bfloat16 else made
        for edge, made in zip(operation.outputs, widened.outputs, strict=True)
    ]


def _keep(graph: Graph, operation: Operation, inputs: list[Edge]) -> list[Edge]:
    """The operation in bfloat16, its inputs and outputs cast."""
    wanted = zip(inputs, operation.inputs, strict=True)
    given = [_SINGLE.cast(graph, found, edge.dtype, f"{operation.name}/bfloat16") for found, edge in wanted]
    kept = Operation(operation.type, operation.name, given, attributes=dict(operation.attributes))
    kept.outputs = [Edge(e.name, e.dtype, e.shape, kept) for e in operation.outputs]
    graph.operations.append(kept)
    return [_SINGLE.cast(graph, edge, _SINGLE.dtype(edge.dtype), f"{edge.name}/float32") for edge in kept.outputs]


def _round(graph: Graph, edge: Edge) -> Edge:
    narrow = _SINGLE.cast(graph, edge, tf.bfloat16, f"{edge.name}/bfloat16")
    return _SINGLE.cast(graph, narrow, tf.float32, f"{edge.name}/rounded")
