"""Finds convolution filters among the parameters: kept in ONNX's layout, no step transposes them."""

from __future__ import annotations

from graphfreeze.training.graph import NamedGraph, Operation

__all__ = ["convolution_filters"]

_FILTER_INPUT = {
    "Conv2D": 1,
    "Conv2DBackpropInput": 1,
    "Conv3D": 1,
    "Conv3DBackpropInputV2": 1,
}
_KEEPS_LAYOUT = frozenset(
    {"Add", "AddV2", "Cast", "ConcatV2", "Identity", "Mul", "SelectV2", "SplitV", "StopGradient", "Sub"}
)


def convolution_filters(named: NamedGraph) -> set[str]:
    """The names of the inputs that reach the filter of a convolution with all their axes in place."""
    # What each edge is made of: the inputs that reach it. One walk serves all of them.
    reaching = {
        id(edge): {name}
        for name, edge in zip(named.inputs, named.graph.inputs, strict=True)
        if edge.shape is not None and len(edge.shape) in (4, 5)
    }
    found: set[str] = set()
    for operation in named.graph.operations:
        position = _FILTER_INPUT.get(operation.type)
        if position is not None:
            found |= reaching.get(id(operation.inputs[position]), set())
        elif operation.type in _KEEPS_LAYOUT or _takes_slices(operation):
            names = set().union(*(reaching.get(id(edge), ()) for edge in operation.inputs))
            if names:
                reaching.update((id(edge), names) for edge in operation.outputs)
    return found


def _takes_slices(operation: Operation) -> bool:
    """Whether it takes slices along an axis, each by a number."""
    if operation.type != "GatherV2":
        return False
    shape = operation.inputs[1].shape
    return shape is not None and len(shape) == 1
