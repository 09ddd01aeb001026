"""The loss of a training step as a function of its parameters, in float64, with nothing of the gradients in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.double_precision import promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation
from tools.finite_difference_cases.in_float64 import COMPOSED

__all__ = ["Arrays", "ExactLoss"]

Arrays = Mapping[str, npt.NDArray[Any]]

_RANDOM = frozenset(
    f"Stateless{kind}{version}"
    for kind in ("RandomUniform", "RandomNormal", "TruncatedNormal")
    for version in ("", "V2")
)
"""What draws other numbers in float64 than in float32. The numbers of float32 are the ones that the step has."""


class ExactLoss:
    """The loss at parameters that are moved; all other inputs stay, seeds and the batch among them.

    TensorFlow's own operations compute it, one by one, and constants are what the gradients take for constants: what
    passes a StopGradient has the values of the first evaluation in all later ones. Where the step assigns to a
    parameter before it reads it (SpectralNormalization), the gradient is that of what is read: what is assigned has
    the value of the first evaluation, and moves as the parameter does.

    Attributes:
        value: The loss where nothing is moved.

    Args:
        named: The graph of loss and gradients, of which only what the loss needs is run.
        values: The values of its inputs by name.
        parameters: The names of the parameters.

    Raises:
        SinglePrecisionError: An operation does not exist in float64.
        tf.errors.OpError: TensorFlow has no kernel for one in float64.
    """

    def __init__(self, named: NamedGraph, values: Arrays, parameters: Collection[str]) -> None:
        assigned = [name for name in parameters if f"new/{name}" in named.outputs]
        alone = _only(named, [named.outputs[0], *(f"new/{name}" for name in assigned)])
        promoted = promote_graph(alone, keep=_RANDOM, allow=COMPOSED)
        self._values = {name: promote_array(values[name]) for name in promoted.inputs}
        self._tensors = {name: tf.constant(value) for name, value in self._values.items()}
        if assigned:
            _, *tensors = _Held(promoted.graph)([self._tensors[name] for name in promoted.inputs])
            for name, edge, tensor in zip(assigned, promoted.graph.outputs[1:], tensors, strict=True):
                self._values[_after(name)] = tensor.numpy()
                self._tensors[_after(name)] = tensor
                _take(promoted, edge, _after(name))
            promoted = _only(promoted, promoted.outputs[:1])
        self._interpreter = _Held(promoted.graph)
        self._names = promoted.inputs
        self.value = self({})

    def __call__(self, moves: Arrays) -> float:
        """The loss where some parameters are moved by so much."""
        tensors = dict(self._tensors)
        for name, move in moves.items():
            for moved in {name, _after(name)} & self._values.keys():
                tensors[moved] = tf.constant(self._values[moved] + move)
        (loss,) = self._interpreter([tensors[name] for name in self._names])
        return float(np.asarray(loss.numpy()).sum())


class _Held(Interpreter):
    """An interpreter for which StopGradient yields in every run what it did in the first one."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._kept: dict[int, list[Any]] = defaultdict(list)
        self._passed: dict[int, int] = {}
        self._is_first = True

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        self._passed = defaultdict(int)
        results = super().__call__(arguments)
        self._is_first = False
        return results

    def apply(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        if operation.type == "StopGradient":
            # In a loop there is one for each iteration.
            key = id(operation)
            if self._is_first:
                self._kept[key].append(inputs[0])
            self._passed[key] += 1
            return [self._kept[key][self._passed[key] - 1]]
        if operation.type in COMPOSED:
            return COMPOSED[operation.type](operation, inputs)
        return super().apply(operation, inputs)


def _after(name: str) -> str:
    return f"after/{name}"


def _only(named: NamedGraph, outputs: Sequence[str]) -> NamedGraph:
    """The graph with some of its outputs alone, and what they need; the given one stays as it is."""
    edges = dict(zip(named.outputs, named.graph.outputs, strict=True))
    graph = Graph(outputs=[edges[name] for name in outputs])
    needed = {id(edge) for edge in graph.outputs}
    for operation in reversed(named.graph.operations):
        if any(id(edge) in needed for edge in operation.outputs):
            graph.operations.append(operation)
            needed.update(id(edge) for edge in operation.inputs)
    graph.operations.reverse()
    used = [(n, e) for n, e in zip(named.inputs, named.graph.inputs, strict=True) if id(e) in needed]
    graph.inputs = [edge for _, edge in used]
    return NamedGraph(graph, [name for name, _ in used], list(outputs))


def _take(named: NamedGraph, edge: Edge, name: str) -> None:
    """Let all that takes an edge take a new input of the graph."""
    new = Edge(name, edge.dtype, edge.shape)
    for operation in named.graph.operations:
        operation.inputs = [new if taken is edge else taken for taken in operation.inputs]
    named.graph.inputs.append(new)
    named.inputs.append(name)
