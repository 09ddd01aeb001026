"""Finite differences find the gradients of right lowerings right, and those of wrong ones wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.training.graph import NamedGraph
from tools.finite_difference_cases.exact_loss import ExactLoss
from tools.finite_difference_cases.examine import Examined, examine

from .conftest import Exported
from .functional import named_graph, replace_rule, scaled, with_gradients

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def examined(model: Exported, directory: Path) -> Examined:
    batch = model.batch()
    if model.sample.dtype != "float32":
        batch["x"] = np.random.default_rng(1).integers(0, 10, batch["x"].shape).astype(model.sample.dtype)
    return examine(model.trace("sgd"), batch, directory)


def outcomes(found: Examined) -> dict[str, str]:
    return {verdict.name.removeprefix("net/"): verdict.outcome for verdict in found.verdicts}


@pytest.mark.parametrize("name", ["mlp", "normalised", "lstm", "embedding", "cnn"])
def test_right_gradients_agree(name: str, exported: Callable[[str], Exported], tmp_path: Path) -> None:
    found = examined(exported(name), tmp_path)
    assert set(outcomes(found).values()) == {"agrees"}
    assert found.loss_error < 1e-6
    genuine = [verdict for verdict in found.verdicts if verdict.rule != "zero"]
    assert len(genuine) >= 3
    assert max(verdict.error for verdict in genuine) < 1e-5
    assert max(verdict.estimate for verdict in genuine) < 1e-5
    assert all(verdict.directions >= 3 for verdict in found.verdicts)


@pytest.mark.parametrize("name", ["embedding", "cnn"])
def test_frozen_elements_are_not_moved_and_have_no_gradient(
    name: str, exported: Callable[[str], Exported], tmp_path: Path
) -> None:
    model = exported(name)
    selectors = {"embedding": "**/table/embeddings where w > 0", "cnn": "**/conv/kernel where w > 0"}
    plan = model.plan(selectors[name])
    patched = Exported(model.sample, model.path, model.scratch)
    patched.plan = lambda *_: plan  # type: ignore[method-assign] # what it freezes is all that differs
    found = examined(patched, tmp_path)
    assert set(outcomes(found).values()) == {"agrees"}
    assert found.frozen == sum(v.frozen_elements for v in plan.variables)


@pytest.mark.parametrize("factor", [1.001, 0.5, -1.0])
def test_a_wrong_gradient_is_found(
    factor: float, exported: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_rule(monkeypatch, "TanhGrad", scaled(factor))
    found = examined(exported("mlp"), tmp_path)
    assert outcomes(found) == {
        "hidden/kernel": "differs",
        "hidden/bias": "differs",
        "scores/kernel": "agrees",
        "scores/bias": "agrees",
    }
    errors = [verdict.error for verdict in found.verdicts if verdict.outcome == "differs"]
    assert errors == pytest.approx([abs(factor - 1)] * 2, rel=1e-3)


# -- the loss that is differentiated


def loss_of(function: Callable[..., Any], values: dict[str, Any], **options: Any) -> tuple[NamedGraph, ExactLoss]:
    named = named_graph(with_gradients(function), values, ["loss", *(f"gradient/{n}" for n in values)], **options)
    return named, ExactLoss(named, values, list(values))


def test_the_loss_alone_is_computed_in_float64() -> None:
    named, loss = loss_of(lambda x: tf.reduce_sum(tf.exp(x)), {"x": X})
    before = len(named.graph.operations)
    exact = X.astype(np.float64)
    assert loss.value == pytest.approx(np.exp(exact).sum(), rel=1e-15)
    assert loss({"x": np.full(X.shape, 1e-9)}) - loss.value == pytest.approx(1e-9 * loss.value, rel=1e-5)
    assert len(named.graph.operations) == before


def test_what_stops_gradients_is_constant_in_loops_too() -> None:
    def function(x: Any) -> Any:
        def body(i: Any, v: Any) -> Any:
            return i + 1, v * tf.stop_gradient(v)

        return tf.reduce_sum(tf.while_loop(lambda i, v: i < 2, body, [0, x])[1]) + tf.reduce_sum(tf.stop_gradient(x))

    _, loss = loss_of(function, {"x": X})
    # x * (x at first) * (the square of x at first): linear in x.
    assert loss({"x": X.astype(np.float64)}) - loss.value == pytest.approx(np.sum(X.astype(np.float64) ** 4), rel=1e-12)


def test_random_numbers_stay_those_of_float32() -> None:
    def function(x: Any) -> Any:
        return tf.reduce_sum(x * tf.random.stateless_normal((3, 4), [1, 2]))

    _, loss = loss_of(function, {"x": X})
    assert loss.value == pytest.approx(float(function(X)), rel=1e-6)


def test_what_is_assigned_before_it_is_read_moves_as_the_parameter_does() -> None:
    w = tf.Variable(X, name="w")

    def step() -> Any:
        with tf.GradientTape() as tape:
            first = tf.reduce_sum(w)
            w.assign(tf.square(w))
            loss = first + tf.reduce_sum(3.0 * w)
        return [loss, tape.gradient(loss, w)]

    named = named_graph(step, {}, ["loss", "gradient/w"], variables=[w])
    (gradient,) = (np.full(X.shape, 4.0),)
    loss = ExactLoss(named, {"w": X}, ["w"])
    move = 1e-3 * np.ones(X.shape)
    assert loss.value == pytest.approx(X.sum() + 3 * np.square(X).sum(), rel=1e-6)
    assert loss({"w": move}) - loss.value == pytest.approx(np.vdot(gradient, move), rel=1e-9)
    np.testing.assert_array_equal(step()[1], gradient)
