"""In which precision a step computes: a float32 parameter may be cast to float16 before anything is done with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation
from graphfreeze.validation.tolerance import unit_roundoff

__all__ = ["computed_roundoffs", "read_roundoffs"]

# fmt: off
_KEEPS_ELEMENTS = frozenset(
    {
        "Add", "AddV2", "BroadcastTo", "Cast", "ConcatV2", "ExpandDims", "GatherNd", "GatherV2", "Identity",
        "IdentityN", "Mul", "Pack", "Reshape", "Select", "SelectV2", "Slice", "Split", "SplitV", "Squeeze",
        "StopGradient", "StridedSlice", "Transpose", "Unpack",
    }
)
"""What lies between a variable and its use: masked reads, lookups, and what puts elements elsewhere or scales them."""
# fmt: on


def read_roundoffs(named: NamedGraph) -> dict[str, float]:
    """The unit roundoff of the coarsest dtype that each floating-point input is cast to before it is used.

    Args:
        named: A functional graph.

    Returns:
        By the names of the inputs; at least the roundoff of the input's own dtype.
    """
    found = _read(named.graph)
    return {name: u for name, u in zip(named.inputs, found, strict=True) if u > 0}


def computed_roundoffs(named: NamedGraph) -> dict[str, float]:
    """The unit roundoff of the coarsest dtype in what each floating-point output is computed from.

    Args:
        named: A functional graph.

    Returns:
        By the names of the outputs; at least the roundoff of the output's own dtype.
    """
    found = _computed(named.graph, [0.0] * len(named.inputs))
    return {name: u for name, u in zip(named.outputs, found, strict=True) if u > 0}


def _read(graph: Graph) -> list[float]:
    """For each input of the graph; 0 where it is no number with a fraction."""
    coarsest: dict[int, float] = {}
    for operation in reversed(graph.operations):
        if operation.bodies:
            for body in operation.bodies.values():
                carried = operation.inputs[len(operation.inputs) - len(body.inputs) :]
                for edge, inner in zip(carried, _read(body), strict=True):
                    coarsest[id(edge)] = max(coarsest.get(id(edge), 0.0), inner)
        elif operation.type in _KEEPS_ELEMENTS:
            behind = max((_of(edge, coarsest) for edge in operation.outputs), default=0.0)
            for edge in operation.inputs:
                if _roundoff(edge.dtype):
                    coarsest[id(edge)] = max(coarsest.get(id(edge), 0.0), behind)
    return [_of(edge, coarsest) for edge in graph.inputs]


def _computed(graph: Graph, given: Sequence[float]) -> list[float]:
    """For each output of the graph, where its inputs are computed so."""
    coarsest = dict(zip(map(id, graph.inputs), given, strict=True))
    for operation in graph.operations:
        inputs = [_of(edge, coarsest) for edge in operation.inputs]
        for index, edge in enumerate(operation.outputs):
            coarsest[id(edge)] = max(_from(operation, index, inputs), _roundoff(edge.dtype))
    return [_of(edge, coarsest) for edge in graph.outputs]


def _from(operation: Operation, index: int, inputs: Sequence[float]) -> float:
    """What an output has from the operation's inputs, and from what happens in its bodies."""
    inner = [
        u
        for body in operation.bodies.values()
        for u in _computed(body, inputs[len(inputs) - len(body.inputs) :])[index : index + 1]
    ]
    return max((*inputs, *inner), default=0.0)


def _of(edge: Edge, coarsest: dict[int, float]) -> float:
    return max(coarsest.get(id(edge), 0.0), _roundoff(edge.dtype))


def _roundoff(dtype: Any) -> float:
    """0 for what is no floating-point number."""
    return unit_roundoff(np.dtype(dtype.as_numpy_dtype)) if dtype.is_floating else 0.0
