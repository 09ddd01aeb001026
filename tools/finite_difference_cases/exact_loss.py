"""The loss of a training step as a function of its parameters, in float64, with nothing of the gradients in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.checks.double_precision import promote_array, promote_graph
from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.training.graph import Graph, NamedGraph, Operation

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

    TensorFlow's own operations compute it, one by one. What the model keeps from being differentiated (StopGradient)
    has the values of the first evaluation in all later ones: to the gradients, these are constants.

    Args:
        named: The graph of loss and gradients, of which only what the loss needs is run.
        values: The values of its inputs by name, at which it is evaluated for the first time.

    Raises:
        SinglePrecisionError: An operation does not exist in float64.
        tf.errors.OpError: TensorFlow has no kernel for one in float64.
    """

    def __init__(self, named: NamedGraph, values: Arrays) -> None:
        promoted = promote_graph(_loss_alone(named), keep=_RANDOM)
        self._interpreter = _Held(promoted.graph)
        self._names = promoted.inputs
        self._tensors = {name: tf.constant(promote_array(values[name])) for name in promoted.inputs}
        self.parameters = frozenset(promoted.inputs)
        self.value = self({})

    def __call__(self, changed: Arrays) -> float:
        """The loss where some inputs have other values, which are float64."""
        tensors = {**self._tensors, **{name: tf.constant(value) for name, value in changed.items()}}
        (loss,) = self._interpreter([tensors[name] for name in self._names])
        return float(np.asarray(loss.numpy()).sum())


class _Held(Interpreter):
    """An interpreter for which StopGradient yields in every run what it did in the first one."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._kept: list[Any] = []
        self._is_first = True
        self._passed = 0

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        self._passed = 0
        results = super().__call__(arguments)
        self._is_first = False
        return results

    def apply(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        if operation.type != "StopGradient":
            return super().apply(operation, inputs)
        if self._is_first:
            self._kept.append(inputs[0])
        self._passed += 1
        return [self._kept[self._passed - 1]]


def _loss_alone(named: NamedGraph) -> NamedGraph:
    """The graph with its first output alone; the given one stays as it is."""
    graph = Graph(list(named.graph.inputs), list(named.graph.operations), [named.graph.outputs[0]])
    needed = {id(edge) for edge in graph.outputs}
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        if any(id(edge) in needed for edge in operation.outputs):
            kept.append(operation)
            needed.update(id(edge) for edge in operation.inputs)
    graph.operations = kept[::-1]
    used = [name for name, edge in zip(named.inputs, graph.inputs, strict=True) if id(edge) in needed]
    graph.inputs = [edge for edge in graph.inputs if id(edge) in needed]
    return NamedGraph(graph, used, named.outputs[:1])
