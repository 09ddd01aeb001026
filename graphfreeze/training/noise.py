"""Noise that TensorFlow draws from a hidden state, other numbers in each run, is drawn by a seed that the step keeps.

The distribution is the same, and so is the generator; only which numbers come is the artifact's to say, the same in
TensorFlow and in ONNX, so that gradients can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.training.class_noise import draw_classes
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation
from graphfreeze.training.operations import add_constant, add_operation

__all__ = ["NOISE_SEED", "Noise", "draw_by_seed", "draws_without_seed", "seed_noise"]

NOISE_SEED = "noise/seed"
"""What the artifact calls the seed: two int64 numbers, of which the second counts the steps."""

_STATELESS = {
    "RandomUniform": "StatelessRandomUniformV2",
    "RandomStandardNormal": "StatelessRandomNormalV2",
    "TruncatedNormal": "StatelessTruncatedNormalV2",
    "RandomUniformInt": "StatelessRandomUniformIntV2",
}
_CLASSES = "Multinomial"
_DRAWS = frozenset({*_STATELESS, _CLASSES})
_PHILOX = 1
_ITERATION = 1 << 20  # further apart than a graph has operations
_NARROW = (tf.float16, tf.bfloat16)


@dataclass(frozen=True)
class Noise:
    """What a step draws from TensorFlow's hidden state.

    Attributes:
        draws: The names of the operations.
        variable: The `tf.Variable` of the seed that the graphs draw by.
        gradients: The graph of all gradients, by that seed: what TensorFlow's own function is compared by.
    """

    draws: tuple[str, ...]
    variable: Any
    gradients: NamedGraph


def draw_by_seed(seed: int, graphs: Sequence[NamedGraph], once_more: Callable[[], NamedGraph]) -> Noise | None:
    """Let graphs draw all noise from one seed; None, and nothing changes, where they draw none.

    Args:
        seed: Where the seed starts.
        graphs: The graphs of the step that may draw.
        once_more: Makes the first graph once more, for TensorFlow's side.
    """
    draws = [draws_without_seed(graph) for graph in graphs]
    if not any(draws):
        return None
    whole = once_more()
    variable = tf.Variable(np.array([seed, 0], np.int64), name="seed")
    for graph, drawn in (*zip(graphs, draws, strict=True), (whole, draws[0])):
        if drawn:
            seed_noise(graph, variable)
    return Noise(tuple(dict.fromkeys(name for drawn in draws for name in drawn)), variable, whole)


def draws_without_seed(named: NamedGraph) -> list[str]:
    """The names of the operations that draw from TensorFlow's hidden state."""
    return [operation.name for operation in named.graph.walk() if operation.type in _DRAWS]


def seed_noise(named: NamedGraph, variable: Any) -> None:
    """Let the graph draw all noise from the seed, and advance the seed.

    Args:
        named: The graph; it gets the seed as one more input and output.
        variable: The `tf.Variable` of the seed.
    """
    graph = named.graph
    seed = Edge(NOISE_SEED, variable.dtype, tuple(variable.shape))
    _seed_graph(graph, seed, count())
    one = add_constant(graph, np.array([0, 1], np.int64), f"{NOISE_SEED}/step")
    (advanced,) = add_operation(graph, "AddV2", f"{NOISE_SEED}/advanced", [seed, one], {"T": _type(tf.int64)})
    graph.inputs.append(seed)
    graph.outputs.append(advanced)
    named.inputs.append(NOISE_SEED)
    named.outputs.append(f"new/{NOISE_SEED}")


def _seed_graph(graph: Graph, seed: Edge, numbers: Iterator[int]) -> None:
    """Let all operations of a graph, and of the bodies in it, draw from a seed."""
    operations, graph.operations = graph.operations, []
    for operation in operations:
        if operation.type in _DRAWS:
            _draw_by_seed(graph, operation, seed, next(numbers))
            continue
        graph.operations.append(operation)
        if not any(inner.type in _DRAWS for body in operation.bodies.values() for inner in body.walk()):
            continue
        operation.inputs.append(seed)
        for name, body in operation.bodies.items():
            inner_seed = Edge(NOISE_SEED, seed.dtype, seed.shape)
            body.inputs.append(inner_seed)
            _seed_graph(body, inner_seed, numbers)
            if name == "body":
                # Each iteration draws other numbers than all others, and than the operations outside.
                step = add_constant(body, np.array([_ITERATION, 0], np.int64), f"{operation.name}/iteration")
                types = {"T": _type(tf.int64)}
                body.outputs += add_operation(body, "AddV2", f"{operation.name}/seed", [inner_seed, step], types)
                operation.outputs.append(Edge(operation.name, seed.dtype, seed.shape, operation))


def _draw_by_seed(graph: Graph, operation: Operation, seed: Edge, number: int) -> None:
    """Put the stateless operation in the place of one that draws from a hidden state."""
    name = operation.name
    offset = add_constant(graph, np.array([number, 0], np.int64), f"{name}/number")
    (own,) = add_operation(graph, "AddV2", f"{name}/seed", [seed, offset], {"T": _type(tf.int64)})
    key, counter = add_operation(
        graph, "StatelessRandomGetKeyCounter", f"{name}/key", [own], {"Tseed": _type(tf.int64)}
    )
    algorithm = add_constant(graph, np.int32(_PHILOX), f"{name}/algorithm")
    if operation.type == _CLASSES:
        draw_classes(graph, operation, [key, counter, algorithm])
        return
    attributes = operation.attributes
    shape, *bounds = operation.inputs
    (output,) = operation.outputs
    is_narrow = output.dtype in _NARROW
    drawn = {"dtype": _type(tf.float32 if is_narrow else output.dtype), "Tshape": attributes["T"]}
    inputs = [shape, key, counter, algorithm, *bounds]
    operation.type = _STATELESS[operation.type]
    operation.inputs, operation.attributes = inputs, drawn
    if is_narrow:
        kind = operation.type
        (wide,) = add_operation(graph, kind, f"{name}/float32", inputs, drawn)
        operation.type, operation.inputs = "Cast", [wide]
        operation.attributes = {"SrcT": _type(tf.float32), "DstT": _type(output.dtype)}
    graph.operations.append(operation)


def _type(dtype: Any) -> Any:
    return attr_value_pb2.AttrValue(type=tf.as_dtype(dtype).as_datatype_enum)
