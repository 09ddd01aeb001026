"""Runs a functional graph in TensorFlow, operation by operation: the reference for what lowering makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.eager import execute_operation
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["Interpreter"]


class Interpreter:
    """Evaluates one graph, with the bodies in it.

    Constants are made once. A tensor is forgotten after its last use, so that memory stays near what a step needs.

    Args:
        graph: A functional graph. It must not change any more.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._constants: dict[int, Any] = {}
        self._last_uses: dict[int, list[list[int]]] = {}

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        """The graph's output tensors for these input tensors.

        Raises:
            tf.errors.OpError: TensorFlow has no kernel for an operation, or it fails.
        """
        return self._run(self.graph, list(arguments))

    def _run(self, graph: Graph, arguments: list[Any]) -> list[Any]:
        tensors = dict(zip(map(id, graph.inputs), arguments, strict=True))
        for operation, dead in zip(graph.operations, self._dead_after(graph), strict=True):
            made = self.apply(operation, [tensors[id(edge)] for edge in operation.inputs])
            tensors.update(zip(map(id, operation.outputs), made, strict=True))
            for key in dead:
                del tensors[key]
        return [tensors[id(edge)] for edge in graph.outputs]

    def _dead_after(self, graph: Graph) -> list[list[int]]:
        """For each operation, the edges that nothing needs any more after it."""
        if id(graph) not in self._last_uses:
            seen = {id(edge) for edge in graph.outputs}
            dead: list[list[int]] = []
            for operation in reversed(graph.operations):
                edges: list[Edge] = [*operation.inputs, *operation.outputs]
                dead.append([key for key in dict.fromkeys(map(id, edges)) if key not in seen])
                seen.update(dead[-1])
            self._last_uses[id(graph)] = dead[::-1]
        return self._last_uses[id(graph)]

    def apply(self, operation: Operation, inputs: list[Any]) -> list[Any]:
        """The output tensors of one operation. A subclass may answer for some operations itself."""
        bodies = operation.bodies
        match operation.type:
            case "Const":
                if id(operation) not in self._constants:
                    array = tensor_util.MakeNdarray(operation.attributes["value"].tensor)
                    self._constants[id(operation)] = tf.constant(array)
                return [self._constants[id(operation)]]
            case "While" | "StatelessWhile":
                while _is_true(self._run(bodies["cond"], inputs)[0]):
                    inputs = self._run(bodies["body"], inputs)
                return inputs
            case "If" | "StatelessIf":
                chosen = "then_branch" if _is_true(inputs[0]) else "else_branch"
                return self._run(bodies[chosen], inputs[1:])
            case "Case" | "StatelessCase":
                branches = list(bodies.values())
                number = int(inputs[0])
                return self._run(branches[number if 0 <= number < len(branches) else -1], inputs[1:])
        return execute_operation(operation, inputs)


def _is_true(predicate: Any) -> bool:
    """TensorFlow's truth: of a scalar its value, of any other tensor whether it has elements."""
    return bool(predicate.numpy()) if predicate.shape.rank == 0 else bool(predicate.shape.num_elements())
