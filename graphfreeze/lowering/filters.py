"""Finds convolution filters among the parameters: kept in ONNX's layout, no step transposes them."""

from __future__ import annotations

from graphfreeze.training.graph import Edge, Graph, NamedGraph

__all__ = ["convolution_filters"]

_FILTER_INPUT = {
    "Conv2D": 1,
    "Conv2DBackpropInput": 1,
    "Conv3D": 1,
    "Conv3DBackpropInputV2": 1,
}
_KEEPS_LAYOUT = frozenset({"Add", "AddV2", "Cast", "Identity", "Mul", "SelectV2", "StopGradient", "Sub"})


def convolution_filters(named: NamedGraph) -> set[str]:
    """The names of the inputs that reach the filter of a convolution through elementwise operations only."""
    return {
        name
        for name, edge in zip(named.inputs, named.graph.inputs, strict=True)
        if edge.shape is not None and len(edge.shape) in (4, 5) and _reaches_filter(named.graph, edge)
    }


def _reaches_filter(graph: Graph, source: Edge) -> bool:
    reached = {id(source)}
    for operation in graph.operations:
        positions = [i for i, edge in enumerate(operation.inputs) if id(edge) in reached]
        if _FILTER_INPUT.get(operation.type) in positions:
            return True
        if positions and operation.type in _KEEPS_LAYOUT:
            reached.update(id(edge) for edge in operation.outputs)
    return False
