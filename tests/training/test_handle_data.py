"""Variables that are read in loops within loops, and in branches within loops, train after loading as before saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze

X = tf.TensorSpec([None, 4], tf.float32, name="x")


class Looping(tf.Module):
    """Weights, and what is computed with them."""

    def __init__(self, call: Callable[[Looping, Any], Any]) -> None:
        super().__init__()
        make = np.random.default_rng(3)
        self.w = tf.Variable(make.normal(size=(4, 4)).astype(np.float32) / 2, name="w")
        self.b = tf.Variable(make.normal(size=(4,)).astype(np.float32), name="b")
        self._call = call

    @tf.function(input_signature=[X])
    def serve(self, x: Any) -> Any:
        return {"out": self._call(self, x)}


def loop_in_loop(m: Looping, x: Any) -> Any:
    def outer(i: Any, h: Any) -> Any:
        def inner(j: Any, g: Any) -> Any:
            return j + 1, tf.tanh(g @ m.w + m.b)

        return i + 1, h * 0.5 + tf.while_loop(lambda j, g: j < 2, inner, [0, h])[1]

    return tf.while_loop(lambda i, h: i < 3, outer, [0, x])[1]


def loop_that_data_end_in_another(m: Looping, x: Any) -> Any:
    def outer(i: Any, h: Any) -> Any:
        def inner(j: Any, g: Any) -> Any:
            return j + 1, tf.tanh(g @ m.w)

        def going_on(j: Any, g: Any) -> Any:
            return (j < 5) & (tf.reduce_sum(tf.abs(g)) > 2.0)

        return i + 1, h * 0.5 + tf.while_loop(going_on, inner, [0, h])[1] + m.b

    return tf.while_loop(lambda i, h: (i < 4) & (tf.reduce_sum(tf.abs(h)) < 90.0), outer, [0, x])[1]


def three_loops(m: Looping, x: Any) -> Any:
    def nested(depth: int, h: Any) -> Any:
        def body(i: Any, g: Any) -> Any:
            return i + 1, tf.tanh(g @ m.w + m.b) if depth == 0 else nested(depth - 1, g)

        return tf.while_loop(lambda i, g: i < 2, body, [0, h])[1]

    return nested(2, x)


def scan_in_map(m: Looping, x: Any) -> Any:
    def last(row: Any) -> Any:
        return tf.scan(lambda h, v: tf.tanh(tf.linalg.matvec(m.w, h) + v), row, initializer=m.b)[-1]

    return tf.map_fn(last, x)


def branch_in_a_loop(m: Looping, x: Any) -> Any:
    def body(i: Any, h: Any) -> Any:
        return i + 1, tf.cond(tf.reduce_sum(h) > 0.0, lambda: tf.tanh(h @ m.w), lambda: tf.sin(h @ m.w))

    return tf.while_loop(lambda i, h: i < 3, body, [0, x])[1] + m.b


CALLS = [loop_in_loop, loop_that_data_end_in_another, three_loops, scan_in_map, branch_in_a_loop]


@pytest.mark.parametrize("call", CALLS)
def test_the_gradients_are_those_before_saving(call: Callable[[Looping, Any], Any], tmp_path: Path) -> None:
    module = Looping(call)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures={"serve": module.serve})
    report = graphfreeze.rewrite(
        tmp_path / "model", tmp_path / "out", [graphfreeze.Selection("freeze", "w[0, 1]")], loss="mse", endpoint="serve"
    )
    assert all(check["passed"] for check in report["checks"])
    trainer = graphfreeze.Trainer(tmp_path / "out", device="cpu")
    make = np.random.default_rng(4)
    for count in (3, 1):
        batch = {name: make.normal(size=(count, 4)).astype(np.float32) for name in ("x", "y")}
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((module.serve(batch["x"])["out"] - batch["y"]) ** 2)
        w, b = (gradient.numpy() for gradient in tape.gradient(loss, [module.w, module.b]))
        assert np.abs(w).max() > 1e-3
        w[0, 1] = 0
        found = trainer.gradients(batch)
        assert found.loss == pytest.approx(float(loss), rel=1e-6)
        np.testing.assert_allclose(found.gradients["w"], w, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.gradients["b"], b, rtol=1e-4, atol=1e-6)
