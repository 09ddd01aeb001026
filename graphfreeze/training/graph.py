"""The functional graph: a TensorFlow graph without variables, calls and control edges.

Every tensor is an `Edge`, made once. What a variable held before the step is an input, what it holds after is an
output. Only While and If keep graphs of their own, which are functional too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Edge", "Graph", "NamedGraph", "Operation"]


@dataclass(eq=False, slots=True)
class Edge:
    """A tensor.

    Attributes:
        name: The name of the operation that makes it, or of the graph's input.
        dtype: Its `tf.DType`.
        shape: Its static shape with None for what is unknown; None where the rank is unknown.
        producer: The operation that makes it, None for an input.
    """

    name: str
    dtype: Any
    shape: tuple[int | None, ...] | None = None
    producer: Operation | None = field(default=None, repr=False)


@dataclass(eq=False, slots=True)
class Operation:
    """One TensorFlow operation.

    Attributes:
        type: TensorFlow's name of the operation (`MatMul`).
        name: The node's name, scopes included (`dense/MatMul`).
        inputs: Its data inputs, in TensorFlow's order.
        outputs: Its outputs.
        attributes: TensorFlow's `AttrValue` protos by name; those left at their default may be absent.
        bodies: For While `cond` and `body`, for If `then_branch` and `else_branch`.
    """

    type: str
    name: str
    inputs: list[Edge]
    outputs: list[Edge] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    bodies: dict[str, Graph] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Graph:
    """Operations in an order that respects their data."""

    inputs: list[Edge] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    outputs: list[Edge] = field(default_factory=list)

    def prune(self) -> None:
        """Drop every operation that no output needs, here and in the bodies."""
        needed = {id(edge) for edge in self.outputs}
        kept: list[Operation] = []
        for operation in reversed(self.operations):
            if any(id(edge) in needed for edge in operation.outputs):
                kept.append(operation)
                needed.update(id(edge) for edge in operation.inputs)
        self.operations = kept[::-1]
        for operation in self.operations:
            for body in operation.bodies.values():
                body.prune()

    def walk(self) -> Iterator[Operation]:
        """Every operation, those of the bodies included."""
        for operation in self.operations:
            yield operation
            for body in operation.bodies.values():
                yield from body.walk()


@dataclass(slots=True)
class NamedGraph:
    """A functional graph whose inputs and outputs have names.

    Attributes:
        graph: The graph.
        inputs: The names of `graph.inputs`: the function's arguments, then the variables in order of first use.
        outputs: The names of `graph.outputs`: the function's results, then `new/NAME` for every assigned variable.
    """

    graph: Graph
    inputs: list[str]
    outputs: list[str]

    def drop_outputs(self, names: Collection[str]) -> None:
        """Leave out outputs and what only they need, in place."""
        kept = [(name, edge) for name, edge in zip(self.outputs, self.graph.outputs, strict=True) if name not in names]
        self.outputs, self.graph.outputs = [name for name, _ in kept], [edge for _, edge in kept]
        self.graph.prune()
