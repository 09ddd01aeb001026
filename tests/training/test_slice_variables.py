"""Graphs whose state is the trained slices of a variable alone, against the graphs of the whole variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.slice_variables import Sliced, keep_trained_slices
from graphfreeze.training.variable_uses import VariableSlot

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Something computed from a variable.

    Attributes:
        compute: Takes the variable, the input, and 1 where the variable trains, in a shape that broadcasts to it.
        variable: The variable's shape.
        x: The input's shape without the batch.
        less: By axis of the slices, the type of the operation whose work is to shrink with them.
    """

    compute: Callable[[Any, Any, Array], Any]
    variable: tuple[int, ...]
    x: tuple[int, ...]
    less: Mapping[int, str] = field(default_factory=dict)


def loop(w: Any, x: Any, m: Array) -> Any:
    """Each of four steps reads the kernel."""
    read = tf.convert_to_tensor(w)
    return tf.while_loop(
        lambda i, state: i < 4, lambda i, state: (i + 1, tf.tanh(state @ read)), (0, x), maximum_iterations=4
    )[1]


def rows(x: Any) -> Any:
    """Numbers of rows: inputs are between 0 and 9."""
    return tf.cast(x, tf.int32)


def lookup(w: Any, x: Any, m: Array) -> Any:
    return tf.gather(w, rows(x))


def blended_lookup(w: Any, x: Any, m: Array) -> Any:
    """As a rewritten model reads: the rows' masks are looked up, too."""
    mask = np.broadcast_to(m, (w.shape[0], *m.shape[1:]))
    return tf.gather(mask, rows(x)) * tf.gather(w, rows(x)) + tf.stop_gradient(tf.gather((1 - mask) * 0.5, rows(x)))


def selected_lookup(w: Any, x: Any, m: Array) -> Any:
    mask = np.broadcast_to(m, w.shape) == 1
    return tf.where(tf.gather(mask, rows(x)), tf.gather(w, rows(x)), tf.gather(np.full(w.shape, 0.5), rows(x)))


def two_lookups(w: Any, x: Any, m: Array) -> Any:
    return blended_lookup(w, x, m) * blended_lookup(w, 9 - x, m)


def tied(w: Any, x: Any, m: Array) -> Any:
    """A table that is looked up, and whose transpose makes scores."""
    return tf.tanh(blended_lookup(w, x, m)) @ tf.transpose(m * w + tf.stop_gradient((1 - m) * 0.5))


def convolution(strides: int) -> Callable[[Any, Any, Array], Any]:
    return lambda w, x, m: tf.nn.conv2d(x, m * w + (1 - m) * 0.5, strides, "SAME")


PRODUCT = {0: "MatMul", 1: "MatMul"}
CASES: dict[str, Case] = {
    "product": Case(lambda w, x, m: x @ w, (5, 7), (5,), PRODUCT),
    "blended": Case(lambda w, x, m: x @ (m * w + (1 - m) * 0.5), (5, 7), (5,), PRODUCT),
    "selected": Case(lambda w, x, m: x @ tf.where(m == 1, w, np.full(w.shape, 0.5)), (5, 7), (5,), PRODUCT),
    "wide product": Case(lambda w, x, m: x @ w, (3, 11), (3,), PRODUCT),
    "wide scale": Case(lambda w, x, m: x * w, (2, 3, 11), (2, 3, 11)),
    "transposed": Case(lambda w, x, m: tf.matmul(x, w, transpose_b=True), (7, 5), (5,), PRODUCT),
    "sequences": Case(lambda w, x, m: tf.tensordot(x, w, 1), (5, 7), (4, 5), PRODUCT),
    "several axes": Case(lambda w, x, m: tf.tensordot(x, w, [[1, 2], [0, 1]]), (4, 5, 7), (4, 5), {2: "MatMul"}),
    "einsum": Case(
        lambda w, x, m: tf.einsum("bti,ijk->btjk", x, w), (5, 4, 7), (3, 5), dict.fromkeys(range(3), "Einsum")
    ),
    "convolution": Case(convolution(1), (3, 3, 5, 7), (6, 6, 5), dict.fromkeys((2, 3), "Conv2DBackpropFilter")),
    "strides": Case(convolution(2), (2, 3, 5, 7), (6, 6, 5), dict.fromkeys((2, 3), "Conv2DBackpropFilter")),
    "dilated": Case(lambda w, x, m: tf.nn.convolution(x, w, padding="SAME", dilations=2), (3, 3, 5, 7), (6, 6, 5)),
    "convolution of sequences": Case(
        lambda w, x, m: tf.nn.conv1d(x, w, 1, "SAME"),
        (3, 5, 7),
        (6, 5),
        dict.fromkeys((1, 2), "Conv2DBackpropFilter"),
    ),
    "volumes": Case(
        lambda w, x, m: tf.nn.conv3d(x, w, [1] * 5, "SAME"),
        (2, 2, 2, 5, 7),
        (3, 3, 3, 5),
        dict.fromkeys((3, 4), "Conv3DBackpropFilterV2"),
    ),
    "depthwise": Case(lambda w, x, m: tf.nn.depthwise_conv2d(x, w, [1] * 4, "SAME"), (3, 3, 5, 2), (6, 6, 5)),
    "lookup": Case(lookup, (10, 4), (5,), {0: "ScatterNd"}),
    "blended lookup": Case(blended_lookup, (10, 4), (5,), {0: "ScatterNd"}),
    "selected lookup": Case(selected_lookup, (10, 4), (5,), {0: "ScatterNd"}),
    "two lookups": Case(two_lookups, (10, 4), (5,), {0: "ScatterNd"}),
    "lookup of matrices": Case(lookup, (10, 4, 3), (5,), {0: "ScatterNd"}),
    "lookup of scalars": Case(lookup, (10,), (5,), {0: "ScatterNd"}),
    "lookup along the second axis": Case(lambda w, x, m: tf.gather(w, rows(x), axis=1), (4, 10), (5,)),
    "lookup of positions": Case(lambda w, x, m: tf.gather_nd(w, rows(x)[..., None]), (10, 4), (5,)),
    "lookup with batch axes": Case(lambda w, x, m: tf.gather(w, [[1, 0]] * 10, batch_dims=1), (10, 4), (5,)),
    "lookup in another dtype": Case(
        lambda w, x, m: tf.gather(tf.cast(tf.identity(w), tf.float32), rows(x)), (10, 4), (5,), {0: "ScatterNd"}
    ),
    "tied": Case(tied, (10, 4), (5,), {0: "ScatterNd"}),
    "loop": Case(loop, (5, 5), (5,)),
    "regularised": Case(
        lambda w, x, m: tf.concat([tf.reshape(x @ w, [-1]), tf.reshape(tf.square(w), [-1])], 0), (5, 7), (5,)
    ),
    "scale": Case(lambda w, x, m: x * w, (7,), (4, 7)),
    "cast": Case(lambda w, x, m: tf.cast(x, tf.float32) @ tf.cast(w, tf.float32), (5, 7), (5,), PRODUCT),
    "parts": Case(lambda w, x, m: x @ w[:, :3] + x @ w[:, 3:6], (5, 7), (5,)),
    "branch": Case(lambda w, x, m: tf.cond(x[0, 0] > 0, lambda: x @ w, lambda: x @ (2 * w)), (5, 7), (5,)),
}

KEPT: dict[str, Callable[[int], list[int]]] = {
    "block": lambda size: list(range(size))[1:3],
    "first": lambda size: [0],
    "ends": lambda size: [0, size - 1],
    "every other": lambda size: list(range(0, size, 2)),
}
TESTS = [
    pytest.param(case, axis, kept, id=f"{name}-{axis}-{kept}")
    for name, case in CASES.items()
    for axis, size in enumerate(case.variable)
    for kept, chosen in KEPT.items()
    if 0 < len(chosen(size)) < size
]


def trace(case: Case, variable: Any, mask: Array) -> NamedGraph:
    """Loss and gradient, traced for any batch size."""

    def step(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(tf.cast(case.compute(variable, x, mask), tf.float64) + 0.3))
        return loss, tf.convert_to_tensor(tape.gradient(loss, variable))

    traced = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None, *case.x), tf.float64))
    slots = {id(variable.handle): VariableSlot("w", variable.dtype, tuple(variable.shape))}
    return functionalise(traced, ["x"], ["loss", "gradient/w"], slots)


def run(named: NamedGraph, values: Mapping[str, Array]) -> dict[str, Array]:
    found = Interpreter(named.graph)([tf.constant(values[name]) for name in named.inputs])
    return {name: value.numpy() for name, value in zip(named.outputs, found, strict=True)}


@pytest.mark.parametrize(("case", "axis", "kept"), TESTS)
def test_the_same_loss_and_the_gradient_of_the_slices(case: Case, axis: int, kept: str) -> None:
    rng = np.random.default_rng(0)
    size = case.variable[axis]
    slices = TrainedSlices(axis, size, np.array(KEPT[kept](size)))
    mask = np.isin(np.arange(size), slices.indices).astype(np.float64)
    mask = mask.reshape([-1 if other == axis else 1 for other in range(len(case.variable))])
    value = rng.normal(size=case.variable)
    x = rng.uniform(0, 9.99, (3, *case.x))
    variable = tf.Variable(value)

    expected = run(trace(case, variable, mask), {"x": x, "w": value})
    named = trace(case, variable, mask)
    # Where slices train, what is called frozen must not be read.
    keep_trained_slices(named, {"w": Sliced(slices, np.where(mask == 1, np.nan, value))})
    assert named.graph.inputs[named.inputs.index("w")].shape == slices.shape(case.variable)
    found = run(named, {"x": x, "w": slices.cut(value)})

    single = any(edge.dtype == tf.float32 for o in named.graph.operations for edge in o.outputs)
    tolerance = 1e-6 if single else 1e-12
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance)
    gradient = slices.cut(expected["gradient/w"])
    np.testing.assert_allclose(found["gradient/w"], gradient, rtol=tolerance, atol=tolerance * np.abs(gradient).max())
    if axis in case.less:
        made = [o.type for o in named.graph.operations if o.name.endswith("/trained") or o.type == "ScatterNd"]
        assert case.less[axis] in made


def test_a_gradient_that_is_divided_as_a_whole_is_cut_before() -> None:
    """As a scaled loss has it: the gradient of the loss itself is the gradient over the scale."""
    variable, scale = tf.Variable(np.ones((10, 4))), tf.Variable(np.float64(8))

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(tf.gather(variable, rows(x)))) * scale
        return tf.convert_to_tensor(tape.gradient(loss, variable)) / scale

    traced = tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((None, 5), tf.float64))
    slots = {
        id(v.handle): VariableSlot(name, v.dtype, tuple(v.shape)) for name, v in (("w", variable), ("scale", scale))
    }
    named = functionalise(traced, ["x"], ["gradient/w"], slots)
    keep_trained_slices(named, {"w": Sliced(TrainedSlices(0, 10, np.array([2, 3])), np.ones((10, 4)))})
    assert "UnsortedSegmentSum" not in [o.type for o in named.graph.operations]
    x = np.array([[1.0, 2, 2, 3, 9]])
    found = run(named, {"x": x, "w": np.ones((2, 4)), "scale": np.array(8.0)})["gradient/w"]
    np.testing.assert_allclose(found, np.cos(1.0) * np.array([[2.0] * 4, [1.0] * 4]), rtol=1e-12)


@pytest.mark.parametrize("name", ["lookup", "lookup in another dtype", "lookup of matrices", "blended lookup"])
def test_a_lookup_makes_nothing_as_large_as_the_table(name: str) -> None:
    case = CASES[name]
    value = np.ones(case.variable)
    named = trace(case, tf.Variable(value), (np.arange(10) == 4).astype(np.float64).reshape(-1, 1))
    keep_trained_slices(named, {"w": Sliced(TrainedSlices(0, 10, np.array([4])), value)})
    assert not [o.name for o in named.graph.operations if o.type != "Const" and (o.outputs[0].shape or ())[:1] == (10,)]
