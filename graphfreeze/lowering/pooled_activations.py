"""Masks the gradient of a Relu after max pooling where it is small: before it is sent to the elements.

With a Relu before max pooling, TensorFlow's gradient goes to the largest element of each window, and then is cut where
that element is not positive. Largest elements are positive where the pooled ones are, so the cut can come first, on a
quarter of the elements or fewer: `ReluGrad(MaxPoolGrad(x, y, dy), x)` is `MaxPoolGrad(x, y, ReluGrad(dy, y))`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["cut_before_pooling"]

MASKS = ("ReluGrad", "Relu6Grad")
POOLINGS = ("MaxPoolGrad", "MaxPool3DGrad")


def cut_before_pooling(graph: Graph) -> Graph:
    """Swap each such pair. The given graph does not change: others share its operations."""
    uses = Counter(id(edge) for operation in graph.operations for edge in operation.inputs)
    uses.update(id(edge) for edge in graph.outputs)
    pairs = {
        id(operation): operation.inputs[0].producer
        for operation in graph.operations
        if _is_swappable(operation) and uses[id(operation.inputs[0])] == 1
    }
    if not pairs:
        return graph
    dropped = {id(pooling) for pooling in pairs.values()}
    operations: list[Operation] = []
    for operation in graph.operations:
        pooling = pairs.get(id(operation))
        if pooling is not None:
            operations += _swapped(operation, pooling)
        elif id(operation) not in dropped:
            operations.append(operation)
    return Graph(graph.inputs, operations, graph.outputs)


def _is_swappable(mask: Operation) -> bool:
    if mask.type not in MASKS:
        return False
    gradient, features = mask.inputs
    pooling = gradient.producer
    return pooling is not None and pooling.type in POOLINGS and pooling.inputs[0] is features


def _swapped(mask: Operation, pooling: Operation) -> list[Operation]:
    features, pooled, gradient = pooling.inputs
    cut = Edge(f"{mask.name}/cut", gradient.dtype, gradient.shape)
    first = replace(mask, name=cut.name, inputs=[gradient, pooled], outputs=[cut])
    cut.producer = first
    return [first, replace(pooling, inputs=[features, pooled, cut], outputs=mask.outputs)]
