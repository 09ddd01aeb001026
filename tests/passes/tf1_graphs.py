"""Graphs of TensorFlow 1 with control flow, calls and updates of every kind; their operation `train` makes a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.passes.tf1_models import BATCH, OPTIMIZERS, save_graph, v1

X = {"x": BATCH["x"]}

Graph = Callable[[bool], tuple[dict[str, Any], dict[str, Any]]]
"""Builds a graph, with resource variables or with references, and gives its inputs and outputs."""


def build(graph: Graph, path: Path, *, resource: bool = False) -> Path:
    return save_graph(path, lambda: graph(resource))


def variable(name: str, shape: list[int], resource: bool) -> Any:
    return v1.get_variable(name, shape, use_resource=resource)


def inputs() -> Any:
    return v1.placeholder(tf.float32, [None, 4], "x")


def minimize(y: Any, optimizer: str = "momentum") -> None:
    tf.group(OPTIMIZERS[optimizer]().minimize(v1.reduce_sum(v1.square(y - 1.0))), name="train")


@contextmanager
def branches_of_tensorflow_1() -> Iterator[None]:
    v1.disable_control_flow_v2()
    try:
        yield
    finally:
        v1.enable_control_flow_v2()


def branches(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w, u = inputs(), variable("w", [4, 3], resource), variable("u", [4, 3], resource)
    y = v1.cond(v1.placeholder_with_default(True, []), lambda: x @ w, lambda: x @ u)
    y = tf.identity(y, "y")
    minimize(y)
    return {"x": x}, {"y": y}


def old_branches(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        return branches(resource)


def loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 4], resource)
    y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ w)), (0, x))[1]
    y = tf.identity(y, "y")
    minimize(y)
    return {"x": x}, {"y": y}


def old_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w = inputs(), variable("w", [4, 4], resource)
        read = tf.identity(w)
        y = v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, tf.tanh(a @ read)), (0, x))[1]
        y = tf.identity(y, "y")
        minimize(y)
    return {"x": x}, {"y": y}


def reads_in_a_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w, e = inputs(), variable("w", [4, 4], True), variable("e", [3, 4], True)

        def body(i: Any, a: Any) -> tuple[Any, Any]:
            inner = v1.while_loop(lambda j, b: j < 2, lambda j, b: (j + 1, b @ w.read_value()), (0, a))[1]
            return i + 1, tf.tanh(inner + tf.nn.embedding_lookup(e, i) + a @ w.read_value())

        y = tf.identity(v1.while_loop(lambda i, a: i < 3, body, (0, x))[1], "y")
        minimize(y)
    return {"x": x}, {"y": y}


def updates_in_a_loop(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    with branches_of_tensorflow_1():
        x, w = inputs(), variable("w", [4, 4], True)
        v1.train.get_or_create_global_step()

        def body(i: Any, a: Any) -> tuple[Any, Any]:
            gradient = tf.fill([4, 4], 0.1) + tf.reduce_sum(a @ w.read_value())
            step = tf.raw_ops.ResourceApplyGradientDescent(var=w.handle, alpha=0.1, delta=gradient)
            with v1.control_dependencies([step]):
                more = v1.assign_sub(w, tf.ones([4, 4]))
            with v1.control_dependencies([more]):
                return i + 1, tf.identity(a)

        tf.group(v1.while_loop(lambda i, a: i < 3, body, (0, x)), name="train")
    return {"x": x}, {"y": tf.identity(x @ w, "y")}


def calls(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w, u = inputs(), variable("w", [4, 3], True), variable("u", [4, 3], True)
    product = tf.function(lambda a, b: a @ b)
    y = tf.identity(product(x, w) + product(2.0 * x, u) + product(x, w), "y")
    minimize(y)
    return {"x": x}, {"y": y}


def averages(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    y = tf.identity(x @ w, "y")
    step = OPTIMIZERS["momentum"]().minimize(v1.reduce_sum(v1.square(y - 1.0)))
    with v1.control_dependencies([step]), branches_of_tensorflow_1():
        tf.group(v1.train.ExponentialMovingAverage(0.5).apply([w]), name="train")
    return {"x": x}, {"y": y}


def clipping(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    y = tf.identity(x @ w, "y")
    optimizer = OPTIMIZERS["momentum"]()
    gradients, variables = zip(*optimizer.compute_gradients(v1.reduce_sum(v1.square(y - 1.0))), strict=True)
    clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
    tf.group(optimizer.apply_gradients(zip(clipped, variables, strict=True)), name="train")
    return {"x": x}, {"y": y}


def assignments(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    x, w = inputs(), variable("w", [4, 3], resource)
    given = v1.placeholder_with_default(tf.ones([4, 3]), [4, 3])
    with v1.control_dependencies([v1.assign(w, given)]):
        by_rows = v1.scatter_add(w, [0, 1, 2, 3], tf.ones([4, 3]))
    with v1.control_dependencies([by_rows]):
        every = [[i, j] for i in range(4) for j in range(3)]
        by_elements = v1.scatter_nd_sub(w, every, tf.range(0.5, 12.5))
    with v1.control_dependencies([by_elements]):
        tf.group(v1.assign_add(w, tf.ones([4, 3])), v1.scatter_mul(w, [1], [[2.0, 2.0, 2.0]]), name="train")
    return {"x": x}, {"y": tf.identity(x @ w, "y")}


GRAPHS: list[Graph] = [
    branches,
    old_branches,
    loop,
    old_loop,
    reads_in_a_loop,
    updates_in_a_loop,
    calls,
    averages,
    clipping,
    assignments,
]
