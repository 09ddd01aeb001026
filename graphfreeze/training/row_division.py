"""Keras' division of the rows of a gradient, without the branch for divisors that are zero or not a number.

There, Keras adds rows, so that what is looked up nowhere becomes 0 / 0, too. The divisors of its optimizers are roots
of squares with an epsilon added: none is zero (see `takes_rows`), and an element whose squares are not a number is none
itself, whatever is taken from it.
"""

from __future__ import annotations

from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["divide_rows_only"]

_DIVISION = frozenset({"Cast", "Const", "GatherV2", "Identity", "RealDiv"})


def divide_rows_only(graph: Graph) -> None:
    """Let every such division stand in the place of its two branches, in place, in bodies too."""
    renamed: dict[int, Edge] = {}
    operations: list[Operation] = []
    for operation in graph.operations:
        operation.inputs = [renamed.get(id(edge), edge) for edge in operation.inputs]
        if not _is_division_of_rows(operation):
            for body in operation.bodies.values():
                divide_rows_only(body)
            operations.append(operation)
            continue
        division = operation.bodies["else_branch"]
        given = dict(zip(map(id, division.inputs), operation.inputs[1:], strict=True))
        for inner in division.operations:
            inner.inputs = [given.get(id(edge), edge) for edge in inner.inputs]
            operations.append(inner)
        results = [given.get(id(edge), edge) for edge in division.outputs]
        renamed.update(zip(map(id, operation.outputs), results, strict=True))
    graph.operations = operations
    graph.outputs = [renamed.get(id(edge), edge) for edge in graph.outputs]


def _is_division_of_rows(operation: Operation) -> bool:
    if operation.type not in ("If", "StatelessIf"):
        return False
    rows = {inner.type for inner in operation.bodies["else_branch"].walk()}
    more_rows = {inner.type for inner in operation.bodies["then_branch"].walk()}
    return "RealDiv" in rows <= _DIVISION and {"RealDiv", "Where"} <= more_rows
