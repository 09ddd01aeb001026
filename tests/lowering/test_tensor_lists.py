"""TensorLists and TensorArrays in and outside of loops, against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

X = {"x": Argument((None, 3))}
SERIES = {"x": Argument((None, 5, 3))}
raw = tf.raw_ops


def _array(x: Any, size: int, **options: Any) -> Any:
    return tf.TensorArray(x.dtype, size, element_shape=tf.TensorShape([None, 3]), **options)


def _loop(x: Any, first: int, end: int, body: Callable[[Any, Any, Any], Any], array: Any) -> Any:
    return tf.while_loop(
        lambda i, a, t: i < end, lambda i, a, t: (i + 1, tf.tanh(a + x), body(i, a, t)), (first, x, array)
    )[2]


def _written_by_hand(x: Any) -> Any:
    array = _array(x, 3).write(1, x).write(0, tf.sin(x)).write(2, x * x)
    return [array.stack(), array.read(1)]


def _partly_written(x: Any) -> Any:
    return _array(x, 4).write(2, x).stack()


def _overwritten(x: Any) -> Any:
    return _array(x, 2, clear_after_read=False).write(0, x).write(1, x).write(0, tf.exp(x)).stack()


def _pushed_and_popped(x: Any) -> Any:
    empty = raw.EmptyTensorList(element_shape=[-1, 3], max_num_elements=-1, element_dtype=x.dtype)
    one = raw.TensorListPushBack(input_handle=empty, tensor=x)
    two = raw.TensorListPushBack(input_handle=one, tensor=tf.cos(x))
    rest, last = raw.TensorListPopBack(input_handle=two, element_shape=[-1, 3], element_dtype=x.dtype)
    return [last, raw.TensorListStack(input_handle=rest, element_shape=[-1, 3], element_dtype=x.dtype)]


def _resized(x: Any) -> Any:
    rows = raw.TensorListFromTensor(tensor=tf.stack([x, tf.sin(x), x * x]), element_shape=[-1, 3])
    results = []
    for size in (2, 5):
        other = raw.TensorListResize(input_handle=rows, size=size)
        shape = tf.stack([tf.shape(x)[0], 3])
        results.append(raw.TensorListStack(input_handle=other, element_shape=shape, element_dtype=x.dtype))
    return results


def _added(x: Any) -> Any:
    rows = raw.TensorListFromTensor(tensor=tf.stack([x, tf.sin(x)]), element_shape=[-1, 3])
    more = raw.TensorListSetItem(input_handle=raw.ZerosLike(x=rows), index=1, item=x * x)
    total = raw.AddN(inputs=[rows, more, rows])
    return raw.TensorListStack(input_handle=total, element_shape=[-1, 3], element_dtype=x.dtype)


def _measured(x: Any) -> Any:
    rows = raw.TensorListFromTensor(tensor=tf.stack([x, x]), element_shape=[-1, 3])
    length = raw.TensorListLength(input_handle=rows)
    return [x * tf.cast(length, x.dtype), raw.TensorListElementShape(input_handle=rows, shape_type=tf.int32)[1:]]


def _all_written(x: Any) -> Any:
    return _loop(x, 0, 4, lambda i, a, t: t.write(i, a), _array(x, 4)).stack()


def _backwards_written(x: Any) -> Any:
    return _loop(x, 0, 4, lambda i, a, t: t.write(3 - i, a * x), _array(x, 4)).stack()


def _some_written(x: Any) -> Any:
    array = _array(x, 7).write(0, x).write(6, tf.sin(x))
    return _loop(x, 1, 4, lambda i, a, t: t.write(i, a), array).stack()


def _last_written(x: Any) -> Any:
    return _loop(x, 0, 4, lambda i, a, t: t.write(1, a * a), _array(x, 2).write(0, x)).stack()


def _equal_items_written(x: Any) -> Any:
    return _loop(x, 0, 4, lambda i, a, t: t.write(i, x), _array(x, 4)).stack()


def _every_second_written(x: Any) -> Any:
    return _loop(x, 0, 3, lambda i, a, t: t.write(2 * i, a), _array(x, 6)).stack()


def _read_what_was_written(x: Any) -> Any:
    array = _array(x, 5, clear_after_read=False).write(0, x)
    return _loop(x, 1, 5, lambda i, a, t: t.write(i, tf.tanh(t.read(i - 1) * 0.5 + a)), array).stack()


def _changed_in_place(x: Any) -> Any:
    rows = _array(x, 5, clear_after_read=False).unstack(tf.transpose(x, [1, 0, 2]))
    start = x[:, 0]
    return _loop(start, 0, 5, lambda i, a, t: t.write(i, t.read(i) * a), rows).stack()


def _copied(x: Any) -> Any:
    rows = _array(x, 5).unstack(tf.transpose(x, [1, 0, 2]))
    return _loop(x[:, 0], 0, 5, lambda i, a, t: t.write(4 - i, rows.read(i)), _array(x, 5)).stack()


def _part_read(x: Any) -> Any:
    rows = _array(x, 5).unstack(tf.transpose(x, [1, 0, 2]))
    return _loop(x[:, 0], 1, 4, lambda i, a, t: t.write(i, rows.read(5 - i) + a), _array(x, 4)).stack()[1:]


def _read_far_apart(x: Any) -> Any:
    rows = _array(x, 5, clear_after_read=False).unstack(tf.transpose(x, [1, 0, 2]))

    def body(i: Any, a: Any, t: Any) -> Any:
        return t.write(i, rows.read(2 * i) * rows.read(3) + a)

    return _loop(x[:, 0], 0, 3, body, _array(x, 3)).stack()


def _counts_written(x: Any) -> Any:
    counts = tf.while_loop(
        lambda i, t: i < 4, lambda i, t: (i + 1, t.write(i, 3 * i + 2)), (0, tf.TensorArray(tf.int32, 4))
    )[1]
    return [x * tf.cast(tf.reduce_sum(counts.stack()), x.dtype), counts.stack()]


OUTSIDE: list[Callable[..., Any]] = [_written_by_hand, _partly_written, _overwritten]
IN_LOOPS: list[Callable[..., Any]] = [
    _all_written,
    _backwards_written,
    _some_written,
    _last_written,
    _equal_items_written,
    _every_second_written,
    _read_what_was_written,
    _counts_written,
]
READING: list[Callable[..., Any]] = [_changed_in_place, _copied, _part_read, _read_far_apart]
RAW: list[Callable[..., Any]] = [_pushed_and_popped, _resized, _added, _measured]
TOLERANCE = {"float32": 5e-6, "float64": 1e-12}


@pytest.mark.parametrize("function", OUTSIDE + IN_LOOPS)
def test_with_gradients(function: Callable[..., Any]) -> None:
    check(gradients(function), X, tolerance=TOLERANCE)


@pytest.mark.parametrize("function", READING)
def test_reading_with_gradients(function: Callable[..., Any]) -> None:
    check(gradients(function), SERIES, tolerance=TOLERANCE)


@pytest.mark.parametrize("function", RAW)
def test_raw_operations(function: Callable[..., Any]) -> None:
    check(lambda x: tf.nest.flatten(function(x)), X)


@pytest.mark.parametrize("function", [_all_written, _backwards_written])
def test_what_a_loop_writes_in_turn_is_stacked_by_the_scan(function: Callable[..., Any]) -> None:
    graph = check(gradients(function), X, tolerance=TOLERANCE).graph
    assert "ScatterND" not in {node.op_type for node in graph.node}
