"""Updates of a table from the rows of its gradient, against the same updates from the whole gradient, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.checks.interpreter import Interpreter
from graphfreeze.training import row_updates
from graphfreeze.training.functionalise import functionalise
from graphfreeze.training.graph import NamedGraph
from graphfreeze.training.row_updates import update_rows
from graphfreeze.training.variable_uses import VariableSlot

Update = Callable[[Any, Any, Any], Any]
"""Of the gradient, a tensor as large, and a number."""

TABLE = (6, 3)

FROM_ROWS: dict[str, Update] = {
    "moving average": lambda g, m, c: m + (g - m) * 0.1,
    "moving average of squares": lambda g, m, c: m + (tf.square(g) - m) * c,
    "moving average, other way round": lambda g, m, c: c * (g - m) + m,
    "fourth power": lambda g, m, c: m + tf.square(tf.square(g)),
    "step": lambda g, m, c: m - c * g,
    "divided by a number": lambda g, m, c: m - g / c,
    "divided by a tensor": lambda g, m, c: m - c * g / m,
    "passed on": lambda g, m, c: m + tf.identity(tf.stop_gradient(g)),
    "two uses": lambda g, m, c: (m + g) * (m - tf.square(g)),
}
FROM_WHOLE: dict[str, Update] = {
    "the gradient itself": lambda g, m, c: g,
    "a function of it": lambda g, m, c: m + tf.sin(g),
    "divides": lambda g, m, c: c / (m + g) + m / g,
    "taken from the gradient alone": lambda g, m, c: tf.abs(g - m),
    "with another base": lambda g, m, c: 2 * m + (g - m) * c,
    "with a row": lambda g, m, c: g + m[0],
    "times a row": lambda g, m, c: m + g * m[0],
    "square of a sum": lambda g, m, c: tf.square(g - m),
    "norm": lambda g, m, c: m + g * tf.norm(g),
}


@pytest.fixture(autouse=True)
def tables_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_updates, "_FEWEST_ELEMENTS", 1)


def trace(update: Update) -> NamedGraph:
    table, number = tf.Variable(np.zeros(TABLE)), tf.Variable(np.float64(0))

    def step(index: Any, data: Any) -> Any:
        gradient = tf.math.unsorted_segment_sum(data, index, tf.shape(table)[0])
        gradient = tf.ensure_shape(gradient, TABLE) if gradient.shape[0] is None else gradient
        return update(gradient, table.read_value(), number.read_value())

    specs = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, *TABLE[1:]), tf.float64)
    traced = tf.function(step, autograph=False).get_concrete_function(*specs)
    variables = {"table": table, "number": number}
    slots = {id(v.handle): VariableSlot(name, v.dtype, tuple(v.shape)) for name, v in variables.items()}
    return functionalise(traced, ["index", "data"], ["result"], slots)


def run(named: NamedGraph) -> npt.NDArray[Any]:
    rng = np.random.default_rng(0)
    # One row comes three times, one is left out, some have no gradient.
    index = np.array([4, 1, 4, -1, 0, 4], np.int32)
    data = rng.normal(size=(len(index), *TABLE[1:]))
    values = {"index": index, "data": data, "table": rng.uniform(1, 2, TABLE), "number": np.array(0.3)}
    (result,) = Interpreter(named.graph)([tf.constant(values[name]) for name in named.inputs])
    return np.asarray(result)


def types(named: NamedGraph) -> set[str]:
    return {operation.type for operation in named.graph.operations}


@pytest.mark.parametrize("name", FROM_ROWS)
def test_from_rows(name: str) -> None:
    named = trace(FROM_ROWS[name])
    expected = run(named)
    update_rows(named)
    assert "UnsortedSegmentSum" not in types(named)
    np.testing.assert_allclose(run(named), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", FROM_WHOLE)
def test_where_the_whole_is_needed_nothing_changes(name: str) -> None:
    named = trace(FROM_WHOLE[name])
    before = [(operation, list(operation.inputs)) for operation in named.graph.operations]
    update_rows(named)
    after = [(operation, list(operation.inputs)) for operation in named.graph.operations]
    assert all(a is b and x == y for (a, x), (b, y) in zip(before, after, strict=True))


def test_small_tables_and_lists_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_updates, "_FEWEST_ELEMENTS", 19)
    named = trace(FROM_ROWS["step"])
    update_rows(named)
    assert "UnsortedSegmentSum" in types(named)
