"""Joins two functional graphs into one: the training step is the gradients, then the update."""

from __future__ import annotations

from collections.abc import Sequence

from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation

__all__ = ["compose"]


def compose(first: NamedGraph, second: NamedGraph, *, without: Sequence[str] = ()) -> NamedGraph:
    """One graph that runs `first`, then `second` on its results.

    An input of `second` that `first` has as an output of that name, or as `new/NAME`, takes it from there; the others
    are shared by name. The outputs are those of `second` after those of `first` that `second` did not take. Neither
    graph is changed.

    Args:
        first: What runs first.
        second: What runs on its results.
        without: Outputs of `first` that are left out.
    """
    made = dict(zip(first.outputs, first.graph.outputs, strict=True))
    shared = dict(zip(first.inputs, first.graph.inputs, strict=True))
    renamed: dict[int, Edge] = {}
    taken = set(without)
    for name, edge in zip(second.inputs, second.graph.inputs, strict=True):
        source = next((key for key in (name, f"new/{name}") if key in made), None)
        if source is not None:
            renamed[id(edge)] = made[source]
            taken.add(name)
        else:
            renamed[id(edge)] = shared.setdefault(name, edge)
    operations = list(first.graph.operations)
    for operation in second.graph.operations:
        inputs = [renamed.get(id(edge), edge) for edge in operation.inputs]
        copied = Operation(operation.type, operation.name, inputs, [], operation.attributes, operation.bodies)
        copied.outputs = [Edge(edge.name, edge.dtype, edge.shape, copied) for edge in operation.outputs]
        renamed.update(zip(map(id, operation.outputs), copied.outputs, strict=True))
        operations.append(copied)
    results = {name: edge for name, edge in made.items() if name not in taken}
    for name, edge in zip(second.outputs, second.graph.outputs, strict=True):
        results[name] = renamed.get(id(edge), edge)
    graph = Graph(list(shared.values()), operations, list(results.values()))
    graph.prune()
    return NamedGraph(graph, list(shared), list(results))
