"""Operations that TensorFlow has no gradient of, where only a model's inputs reach them.

Keras' fit never asks for the gradient of an input. The gradient of a loaded function is that of all its arguments,
though, and fails at such an operation wherever it is. So there, none is what its gradient is; whether a variable would
have needed one is looked at afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.graph import NamedGraph, Operation

__all__ = ["none_for_missing_gradients", "require_gradients"]

_open: list[set[str]] = []
"""What is collected now, innermost last."""


@contextmanager
def none_for_missing_gradients(function: Any) -> Iterator[set[str]]:
    """Let the operations of a concrete function that have no gradient have none, in place of an error.

    Gives the types of those that were asked for one.
    """
    for kind in sorted(_types(function.graph.as_graph_def())):
        try:
            tf.RegisterGradient(kind)(_none)
        except KeyError:
            continue  # it has a gradient, or is known to have none
    _open.append(set())
    try:
        yield _open[-1]
    finally:
        _open.pop()


def _none(operation: Any, *gradients: Any) -> list[None]:
    if not _open:
        raise LookupError(f"No gradient defined for {operation.type}")
    _open[-1].add(operation.type)
    return [None] * len(operation.inputs)


def _types(graph_def: Any) -> set[str]:
    functions = [function.node_def for function in graph_def.library.function]
    return {node.op for nodes in (graph_def.node, *functions) for node in nodes}


def require_gradients(kinds: set[str], graph: NamedGraph, variables: Iterable[str]) -> None:
    """Check that the loss does not depend on a variable through an operation that has no gradient.

    Args:
        kinds: The types of operations that have none.
        graph: The loss, its first output, and the gradients.
        variables: Names of the inputs that are to be trained.

    Raises:
        UnsupportedError: It does.
    """
    if not kinds:
        return
    wanted = set(variables)
    follows = {id(edge) for name, edge in zip(graph.inputs, graph.graph.inputs, strict=True) if name in wanted}
    needed = {id(graph.graph.outputs[0])}
    for operation in reversed(graph.graph.operations):
        if any(id(edge) in needed for edge in operation.outputs):
            needed.update(id(edge) for edge in operation.inputs)
    for operation in graph.graph.operations:
        if operation.type == "StopGradient" or not any(id(edge) in follows for edge in operation.inputs):
            continue
        missing = kinds & {inner.type for inner in _with_bodies(operation)}
        if missing and any(id(edge) in needed for edge in operation.outputs):
            raise UnsupportedError(
                f"TensorFlow has no gradient of {', '.join(sorted(missing))} ({operation.name}), through which the "
                "loss depends on variables; freeze these, or put a stop_gradient before it"
            )
        follows.update(id(edge) for edge in operation.outputs if edge.dtype.is_floating or edge.dtype == tf.variant)


def _with_bodies(operation: Operation) -> Iterator[Operation]:
    yield operation
    for body in operation.bodies.values():
        yield from body.walk()
