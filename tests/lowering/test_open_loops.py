"""Loops that end at a size: at the last time step, at the last example."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

X = {"x": Argument((None, None, 3))}
SIZES = ((3, 5), (2, 9), (1, 1), (4, 4), (5, 1))
raw = tf.raw_ops


def _steps(x: Any) -> Any:
    return tf.transpose(x, [1, 0, 2])


def _array(x: Any, size: Any) -> Any:
    return tf.TensorArray(x.dtype, size, element_shape=tf.TensorShape([None, 3]))


def _loop(x: Any, first: Any, goes_on: Callable[[Any], Any], step: int, write: Callable[[Any, Any, Any], Any]) -> Any:
    """An array of the states of `a = tanh(a + x[:, 0])`, as the function writes them."""
    array = _array(x, tf.shape(x)[1] + 2)
    return tf.while_loop(
        lambda i, a, t: goes_on(i),
        lambda i, a, t: (i + step, tf.tanh(a + x[:, 0]), write(i, a, t)),
        (first, x[:, 0], array),
    )[2].stack()


def _state(x: Any, goes_on: Callable[[Any, Any], Any], step: int = 1) -> Any:
    length = tf.shape(x)[1]
    return tf.while_loop(lambda i, a: goes_on(i, length), lambda i, a: (i + step, tf.tanh(a + x[:, 0])), (0, x[:, 0]))[
        1
    ]


def _scanned(x: Any) -> Any:
    return tf.scan(lambda a, row: tf.tanh(a * 0.5 + row), _steps(x), tf.zeros_like(x[:, 0]))


def _scanned_backwards(x: Any) -> Any:
    return tf.scan(lambda a, row: tf.tanh(a * 0.5 + row), _steps(x), tf.zeros_like(x[:, 0]), reverse=True)


def _mapped_over_steps(x: Any) -> Any:
    return tf.map_fn(lambda row: tf.sin(row) * tf.reduce_sum(row), _steps(x))


def _mapped_over_examples(x: Any) -> Any:
    return tf.map_fn(lambda row: tf.sin(row) * tf.reduce_sum(row), x)


def _mapped_over_positions(x: Any) -> Any:
    positions = tf.map_fn(lambda i: tf.cast(i * 2, x.dtype), tf.range(tf.shape(x)[1]), fn_output_signature=x.dtype)
    return positions[:, None] * x


def _written(x: Any) -> Any:
    return _loop(x, 0, lambda i: i < tf.shape(x)[1], 1, lambda i, a, t: t.write(i + 1, a))


def _written_from_the_end(x: Any) -> Any:
    length = tf.shape(x)[1]
    return _loop(x, 0, lambda i: i < length, 1, lambda i, a, t: t.write(length - 1 - i, a))


def _counted_down(x: Any) -> Any:
    return _loop(x, tf.shape(x)[1], lambda i: i >= 0, -1, lambda i, a, t: t.write(i, a))


def _equal_items(x: Any) -> Any:
    return _loop(x, 0, lambda i: i < tf.shape(x)[1] + 2, 1, lambda i, a, t: t.write(i, x[:, 0] * 2))


def _counts_written(x: Any) -> Any:
    length = tf.shape(x)[1]
    array = tf.TensorArray(tf.int32, length, element_shape=[])
    array = tf.while_loop(
        lambda i, t: i < length, lambda i, t: (i + 1, t.write(length - 1 - i, i * 3 + length)), (0, array)
    )[1]
    return tf.cast(array.stack(), x.dtype)[:, None] * x


def _read_from_both_ends(x: Any) -> Any:
    length = tf.shape(x)[1]
    array = tf.TensorArray(x.dtype, length, element_shape=[None, 3], clear_after_read=False).unstack(_steps(x))
    return tf.while_loop(
        lambda i, a: i < length,
        lambda i, a: (i + 1, tf.tanh(a + array.read(i) * array.read(length - 1 - i))),
        (0, x[:, 0]),
    )[1]


def _indexed(x: Any) -> Any:
    length = tf.shape(x)[1]
    return tf.while_loop(
        lambda i, a: i < length, lambda i, a: (i + 1, tf.tanh(a + x[:, i] * x[:, -1 - i])), (0, x[:, 0])
    )[1]


def _resized(x: Any) -> Any:
    rows = raw.TensorListFromTensor(tensor=_steps(x), element_shape=[-1, 3])
    results = []
    for difference in (2, -1):
        other = raw.TensorListResize(input_handle=rows, size=tf.shape(x)[1] + difference)
        shape = tf.stack([tf.shape(x)[0], 3])
        results.append(raw.TensorListStack(input_handle=other, element_shape=shape, element_dtype=x.dtype))
    return results


def _twice_as_often(x: Any) -> Any:
    return _state(x, lambda i, length: i < 2 * length)


def _in_steps_of_two(x: Any) -> Any:
    return _state(x, lambda i, length: i < 2 * length, step=2)


def _loop_in_a_loop(x: Any) -> Any:
    def outer(a: Any, row: Any) -> Any:
        return tf.scan(lambda b, other: tf.tanh(b * 0.5 + other + row), _steps(x), a)[-1]

    return tf.scan(outer, _steps(x), x[:, 0])


def _data_end_a_loop_in_it(x: Any) -> Any:
    def shrunk(b: Any) -> Any:
        return tf.while_loop(lambda v: tf.reduce_sum(tf.abs(v)) > 0.5, lambda v: (tf.sin(v) * 0.7,), (b,))[0]

    return tf.scan(lambda a, row: shrunk(a + row) * tf.sin(row), _steps(x), tf.ones_like(x[:, 0]))


SCANS = [
    *(_scanned, _scanned_backwards, _mapped_over_steps, _mapped_over_examples, _mapped_over_positions, _written),
    *(_written_from_the_end, _counted_down, _equal_items, _counts_written, _read_from_both_ends, _indexed),
    *(_resized, _twice_as_often, _in_steps_of_two, _loop_in_a_loop),
]


def _operators(graph: onnx.GraphProto) -> set[str]:
    inner = [_operators(a.g) for node in graph.node for a in node.attribute if a.HasField("g")]
    return {node.op_type for node in graph.node}.union(*inner)


@pytest.mark.parametrize("function", SCANS)
def test_loops_that_end_at_a_size_become_scans(function: Callable[..., Any]) -> None:
    proto = check(gradients(function), X, tolerance={"float32": 1e-5, "float64": 1e-12}, sizes=SIZES)
    assert "Loop" not in _operators(proto.graph)


# -- what may make no iteration, or ends at whichever of two sizes comes first, stays a Loop


def _scanned_from_the_first(x: Any) -> Any:
    return tf.scan(lambda a, row: tf.tanh(a * 0.5 + row), _steps(x))


def _every_second_step(x: Any) -> Any:
    return _state(x, lambda i, length: i < length, step=2)


def _three_steps_at_most(x: Any) -> Any:
    return _state(x, lambda i, length: (i < length) & (i < 3))


def _longer_than_three(x: Any) -> Any:
    return _state(x, lambda i, length: i + 3 < length)


def _as_many_as_the_outer_loop_made(x: Any) -> Any:
    def body(i: Any, a: Any) -> Any:
        return i + 1, tf.while_loop(lambda j, b: j < i, lambda j, b: (j + 1, tf.tanh(b + x[:, 0])), (0, a))[1]

    return tf.while_loop(lambda i, a: i < tf.shape(x)[1], body, (0, x[:, 0]))[1]


LOOPS = [
    *(_scanned_from_the_first, _every_second_step, _three_steps_at_most, _longer_than_three),
    *(_as_many_as_the_outer_loop_made, _data_end_a_loop_in_it),
]


@pytest.mark.parametrize("function", LOOPS)
def test_loops_of_which_no_size_tells_how_often_they_run(function: Callable[..., Any]) -> None:
    check(gradients(function), X, tolerance={"float32": 1e-5, "float64": 1e-12}, sizes=SIZES)


def test_lists_whose_length_no_size_tells_are_refused_by_name() -> None:
    def function(x: Any) -> Any:
        length = tf.minimum(tf.shape(x)[1], 100)
        return tf.while_loop(
            lambda i, t: i < length, lambda i, t: (i + 1, t.write(i, x[:, i])), (0, _array(x, length))
        )[1].stack()

    with pytest.raises(UnsupportedOperationError, match="the length of a TensorList depends on values that are known"):
        lower(function, X)
