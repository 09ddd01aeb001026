"""Loops and branches written by hand: forward and gradients against TensorFlow, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients

X = {"x": Argument((None, 3))}
SERIES = {"x": Argument((None, 4, 3))}


def _operators(graph: onnx.GraphProto) -> set[str]:
    found = {node.op_type for node in graph.node}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _operators(attribute.g)
    return found


def _power(x: Any, times: int = 5) -> Any:
    return tf.while_loop(lambda i, a: i < times, lambda i, a: (i + 1, tf.tanh(a) * x), (0, x))[1]


def _two_exits(x: Any) -> Any:
    return tf.while_loop(
        lambda i, a: i < 9, lambda i, a: (i + 2, a * tf.cast(i, a.dtype) + x), (1, x), maximum_iterations=3
    )


def _counts_down(x: Any) -> Any:
    return tf.while_loop(lambda i, a: i > 0, lambda i, a: (i - 1, tf.sin(a + x)), (4, x))[1]


def _uses_the_counter(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        column = tf.gather(x, i, axis=1)[:, None]
        return i + 1, a * 0.5 + column * tf.cast(2 * i + 1, x.dtype)

    return tf.while_loop(lambda i, a: i < 3, body, (0, x))[1]


def _swaps(x: Any) -> Any:
    return tf.while_loop(lambda i, a, b: i < 3, lambda i, a, b: (i + 1, b * 1.5, a + b), (0, x, tf.cos(x)))[1:]


def _loop_in_loop(x: Any) -> Any:
    def inner(v: Any) -> Any:
        return tf.while_loop(lambda j, a: j < 3, lambda j, a: (j + 1, tf.tanh(a * v) + 0.1 * a), (0, v))[1]

    return tf.while_loop(lambda i, a: i < 4, lambda i, a: (i + 1, inner(a)), (0, x))[1]


def _scan(x: Any) -> Any:
    return tf.scan(lambda a, b: tf.tanh(a * 0.5 + b), tf.transpose(x, [1, 0, 2]))


def _scan_backwards(x: Any) -> Any:
    start = tf.zeros_like(x[:, 0])
    return tf.scan(lambda a, b: tf.tanh(a * 0.5 + b), tf.transpose(x, [1, 0, 2]), start, reverse=True)


def _map(x: Any) -> Any:
    rows = tf.transpose(x, [1, 0, 2])
    signature = (x.dtype, x.dtype)
    return tf.map_fn(lambda p: (p[0] * p[1], tf.exp(p[0])), (rows, tf.range(4, dtype=x.dtype)), signature)


def _scan_in_scan(x: Any) -> Any:
    def step(a: Any, b: Any) -> Any:
        inner = tf.scan(lambda c, d: tf.tanh(c + d), tf.transpose(b * a))
        return inner[-1][:, None] * 0.1 + a

    return tf.scan(step, tf.transpose(x, [1, 0, 2]), tf.ones_like(x[:, 0]))


def _branch_in_loop(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.cond(tf.equal(i % 2, 0), lambda: tf.tanh(a), lambda: a * x)

    return tf.while_loop(lambda i, a: i < 5, body, (0, x))[1]


def _branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0.0, lambda: tf.tanh(x) * 2.0, lambda: tf.exp(x) + tf.reduce_sum(x))


def _branch_with_two_results(x: Any) -> Any:
    y = tf.sin(x)
    return tf.cond(tf.reduce_mean(x) > 0.1, lambda: (x, y), lambda: (y * y, x))


def _nested_branch(x: Any) -> Any:
    def inner() -> Any:
        return tf.cond(tf.reduce_max(x) > 1.0, lambda: x * 2.0, lambda: x * x)

    return tf.cond(tf.reduce_sum(x) > 0.0, inner, lambda: tf.zeros_like(x))


def _loop_in_branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0.0, lambda: _power(x), lambda: x + 1.0)


WITH_GRADIENTS: dict[str, tuple[Callable[..., Any], dict[str, Argument]]] = {
    "power": (_power, X),
    "two exits": (_two_exits, X),
    "counts down": (_counts_down, X),
    "uses the counter": (_uses_the_counter, X),
    "swaps": (_swaps, X),
    "loop in loop": (_loop_in_loop, X),
    "scan": (_scan, SERIES),
    "scan backwards": (_scan_backwards, SERIES),
    "map": (_map, SERIES),
    "scan in scan": (_scan_in_scan, SERIES),
    "branch in loop": (_branch_in_loop, X),
    "branch": (_branch, X),
    "branch with two results": (_branch_with_two_results, X),
    "nested branch": (_nested_branch, X),
}


@pytest.mark.parametrize("name", WITH_GRADIENTS)
def test_with_gradients(name: str) -> None:
    function, arguments = WITH_GRADIENTS[name]
    check(gradients(function), arguments, tolerance={"float32": 5e-6, "float64": 1e-12})


@pytest.mark.parametrize("seed", range(4))
def test_either_branch(seed: int) -> None:
    """Random inputs of four seeds take both branches."""
    check(gradients(_branch), X, precisions=["float64"], seed=seed)


def test_known_loops_are_scans_and_unrolled_ones_nothing() -> None:
    assert "Scan" in _operators(check(lambda x: [_power(x)], X).graph)
    assert not _operators(check(lambda x: [_power(x, 1)], X).graph) & {"Scan", "Loop"}
    assert not _operators(check(lambda x: [_power(x, 0)], X).graph) & {"Scan", "Loop"}


def test_a_known_predicate_leaves_no_branch() -> None:
    proto = check(lambda x: [tf.cond(tf.constant(True), lambda: x * 2.0, lambda: x * 3.0)], X)
    assert _operators(proto.graph) == {"Mul"}


def test_what_does_not_change_is_computed_before_the_loop() -> None:
    def function(x: Any) -> list[Any]:
        def body(i: Any, a: Any) -> tuple[Any, Any]:
            return i + 1, a * tf.exp(tf.sin(x))

        return [tf.while_loop(lambda i, a: i < 4, body, (0, x))[1]]

    (body,) = [a.g for n in check(function, X).graph.node for a in n.attribute if a.HasField("g")]
    assert [node.op_type for node in body.node] == ["Mul"]


def _until_small(x: Any) -> list[Any]:
    return list(tf.while_loop(lambda i, a: tf.reduce_sum(tf.abs(a)) > 1.0, lambda i, a: (i + 1, a * 0.7), (0, x)))


def _as_often_as_samples(x: Any) -> list[Any]:
    return [tf.while_loop(lambda i, a: i < tf.shape(x)[0], lambda i, a: (i + 1, a * 0.5 + x), (0, x))[1]]


def _writes_until_small(x: Any) -> list[Any]:
    def body(i: Any, a: Any, t: Any) -> Any:
        return i + 1, a * 0.7, t.write(i, a)

    def going_on(i: Any, a: Any, t: Any) -> Any:
        return tf.logical_and(i < 8, tf.reduce_sum(tf.abs(a)) > 1.0)

    array = tf.TensorArray(x.dtype, 8, element_shape=x.shape)
    count, _, array = tf.while_loop(going_on, body, (0, x, array))
    return [count, array.stack()]


def _reads_until_small(x: Any) -> list[Any]:
    def going_on(i: Any, a: Any) -> Any:
        return tf.logical_and(i < 3, tf.reduce_sum(tf.abs(a)) < 4.0)

    rows = tf.TensorArray(x.dtype, 3).unstack(tf.transpose(x))
    return list(tf.while_loop(going_on, lambda i, a: (i + 1, a + rows.read(i)), (0, x[:, 0])))


@pytest.mark.parametrize("function", [_until_small, _writes_until_small, _reads_until_small])
def test_loops_that_data_end(function: Callable[..., Any]) -> None:
    assert "Loop" in _operators(check(function, X, tolerance={"float64": 1e-12}).graph)


def test_a_loop_that_the_batch_ends() -> None:
    assert {"Loop", "Scan"} & _operators(check(_as_often_as_samples, X, tolerance={"float64": 1e-12}).graph) == {"Scan"}


def test_a_loop_in_a_branch() -> None:
    check(lambda x: [_loop_in_branch(x)], X)


def _recurs_until_small(x: Any) -> Any:
    """A step that needs what it started from, a constant from outside, and the number of the iteration."""
    weights = tf.constant([[0.3, -0.2, 0.1], [0.2, 0.4, -0.3], [0.1, 0.1, 0.2]], x.dtype)

    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.tanh(a @ weights) + x / tf.cast(i + 2, x.dtype) * tf.reduce_mean(a)

    return tf.while_loop(lambda i, a: (i < 6) & (tf.reduce_sum(tf.abs(a)) > 0.8), body, (0, x))[1]


def _never(x: Any) -> Any:
    return tf.while_loop(lambda i, a: tf.reduce_sum(tf.abs(a)) < -1.0, lambda i, a: (i + 1, tf.sin(a) * x), (0, x))[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: _until_small(x)[1],
        _recurs_until_small,
        _never,
        lambda x: _as_often_as_samples(x),
        lambda x: _writes_until_small(x)[1],
        lambda x: _reads_until_small(x)[1],
    ],
    ids=["until small", "recurs", "never", "batch", "writes", "reads"],
)
def test_gradients_of_loops_that_data_end(function: Callable[..., Any]) -> None:
    check(gradients(function), X, tolerance={"float32": 1e-5, "float64": 1e-12})


def test_branches_of_different_shapes_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperationError, match="branches give different shapes"):
        check(lambda x: [tf.cond(tf.reduce_sum(x) > 0.0, lambda: x, lambda: x[:, :1])], X)


def test_a_variable_that_changes_its_shape_is_refused_by_name() -> None:
    def grows(x: Any) -> list[Any]:
        def body(i: Any, a: Any) -> tuple[Any, Any]:
            return i + 1, tf.concat([a, x], 1)

        shapes = (tf.TensorShape([]), tf.TensorShape([None, None]))
        return [tf.while_loop(lambda i, a: i < 3, body, (0, x), shapes)[1]]

    with pytest.raises(UnsupportedOperationError, match="changes its shape"):
        check(grows, X)


def test_a_branch_in_a_loop_reads_a_part_of_a_list() -> None:
    """What a branch makes exists only there: the loop cannot walk along it."""

    def function(x: Any) -> Any:
        rows = tf.TensorArray(x.dtype, 4, clear_after_read=False).unstack(tf.transpose(x, [1, 0, 2]))

        def body(i: Any, a: Any) -> Any:
            taken = tf.reduce_sum(a) > 0.0
            return i + 1, tf.cond(taken, lambda: a * tf.sin(rows.read(i + 1)), lambda: a + rows.read(3 - i))

        return tf.while_loop(lambda i, a: i < 3, body, (0, x[:, 0]))[1]

    check(lambda x: [function(x)], SERIES, tolerance={"float32": 5e-6})


def _switched(x: Any) -> Any:
    """Branches that keep different things for their gradients."""
    number = tf.cast(tf.reduce_sum(tf.cast(x > 0.0, tf.int32)) % 4, tf.int32)
    weights = tf.reshape(tf.range(6, dtype=x.dtype) / 7, [3, 2])
    branches = [lambda: tf.sin(x) @ weights, lambda: x[:, :2] * x[0, 1], lambda: x[:, 1:] ** 2 + tf.exp(x[0, :1])]
    return tf.switch_case(number, branches)


@pytest.mark.parametrize("seed", range(6))
def test_branches_that_a_number_chooses(seed: int) -> None:
    check(_switched, X, seed=seed, tolerance={"float32": 1e-5})


def test_branches_that_a_number_chooses_have_a_gradient() -> None:
    def alike(x: Any) -> Any:
        number = tf.cast(tf.reduce_sum(tf.cast(x > 0.0, tf.int32)) % 4, tf.int32)
        return tf.switch_case(number, [lambda: tf.tanh(x), lambda: tf.exp(x), lambda: tf.sigmoid(x)])

    for seed in range(6):
        check(gradients(alike), X, seed=seed, tolerance={"float32": 1e-5})
        check(gradients(_switched), X, seed=seed)


def _branches_in_branches(x: Any) -> Any:
    """Each of four ways keeps something of another shape."""
    total, largest = tf.reduce_sum(x), tf.reduce_max(x)
    return tf.cond(
        total > 0.0,
        lambda: tf.cond(largest > 1.0, lambda: tf.tanh(x) * x[:, :1], lambda: x * tf.sin(x[0])),
        lambda: tf.cond(largest > 0.8, lambda: x * tf.exp(x[0, 1]), lambda: x**2 * tf.reduce_sum(x[:1], 1)),
    )


@pytest.mark.parametrize("seed", range(8))
def test_branches_in_branches(seed: int) -> None:
    check(gradients(_branches_in_branches), X, seed=seed)


def test_branches_in_a_loop_that_keep_different_shapes_are_refused_by_name() -> None:
    def function(x: Any) -> Any:
        def body(i: Any, a: Any) -> Any:
            return i + 1, tf.cond(tf.reduce_sum(a) > 0.0, lambda: tf.tanh(a) + x[0], lambda: a * tf.sin(x[0, 1]))

        return tf.while_loop(lambda i, a: i < 3, body, (0, x))[1]

    with pytest.raises(UnsupportedOperationError, match="branches in a loop keep tensors of different shapes"):
        check(gradients(function), X)


@pytest.mark.parametrize("seed", range(2))
def test_branches_that_keep_tensors_of_different_shapes(seed: int) -> None:
    def choose(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0.0, lambda: tf.tanh(x) + x[0], lambda: x * tf.sin(x[0, 1]) * x[:, :1])

    check(gradients(choose), X, seed=seed)


def test_a_loop_takes_rows_by_its_counter() -> None:
    def function(x: Any) -> Any:
        rows = tf.transpose(x[:2])
        return tf.while_loop(
            lambda i, a: i < 3, lambda i, a: (i + 1, tf.sin(a) * rows[i, 1] + rows[-i - 1, 0]), (0, x)
        )[1]

    check(gradients(function), X)
