"""Right lowerings pass, wrong ones are caught by name, and what cannot be compared says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from graphfreeze.checks import float64, float64_pair
from graphfreeze.checks.float64 import check_float64
from graphfreeze.errors import ValidationError
from graphfreeze.lowering.rule import RULES
from graphfreeze.lowering.rules import activation
from graphfreeze.lowering.tensor import Layout
from graphfreeze.training.graph import NamedGraph

from .functional import named_graph, replace_rule, scaled, with_gradients

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, 4)).astype(np.float32)
W = RANDOM.normal(size=(4, 5)).astype(np.float32)
VALUES = {"x": X, "w": W}
NAMES = ["loss", "gradient/x", "gradient/w"]


def check(loss: Any, values: Mapping[str, npt.NDArray[Any]] = VALUES, names: Any = NAMES) -> dict[str, Any]:
    return check_float64("gradients", named_graph(with_gradients(loss), values, names), values)


def rules(result: dict[str, Any]) -> dict[str, str]:
    return {record["tensor"]: record["rule"] for record in result["evidence"]["tensors"]}


def network(x: Any, w: Any) -> Any:
    hidden = tf.tanh(x @ w)
    return tf.reduce_mean(tf.nn.selu(hidden * 3) ** 2)


def recurrent(x: Any, w: Any) -> Any:
    drop = tf.cast(tf.random.stateless_uniform((3, 5), [1, 2]) > 0.3, tf.float32)
    states = tf.scan(lambda state, row: tf.tanh(state * drop + row), tf.stack([x @ w] * 3), tf.zeros((3, 5)))
    return tf.reduce_sum(tf.gather(states, [0, 2]) ** 2)


@pytest.mark.parametrize("loss", [network, recurrent])
def test_what_is_lowered_rightly_agrees(loss: Any) -> None:
    result = check(loss)
    assert result["passed"]
    assert result["evidence"]["status"] == "compared"
    assert rules(result) == dict.fromkeys(NAMES, "rounding")


def test_a_dynamic_batch_and_constants_and_filters() -> None:
    images, kernel = RANDOM.normal(size=(6, 5, 5, 2)).astype(np.float32), RANDOM.normal(size=(3, 3, 2, 4))
    w, k = tf.Variable(W[:, :1], name="w"), tf.Variable(kernel.astype(np.float32), name="k")

    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.reshape(tf.nn.conv2d(x, k, 1, "SAME"), (-1, 4)) @ w) ** 2)
        return [loss, tape.gradient(loss, k)]

    named = named_graph(step, {"x": images}, ["loss", "gradient/k"], variables=[w, k], dynamic=True)
    values = {"x": images, "k": k.numpy()}
    result = check_float64("gradients", named, values, constants={"w": w.numpy()}, filters=["k"])
    assert rules(result) == {"loss": "rounding", "gradient/k": "rounding"}


# -- wrong lowerings


def test_a_sigmoid_for_a_tanh_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Tanh", lambda node, right: RULES["Sigmoid"].apply(node))
    with pytest.raises(ValidationError, match=r"of the graph gradients differs from TensorFlow's by \d") as caught:
        check(network)
    (found,) = caught.value.details["checks"]
    assert not found["passed"]
    assert rules(found) == dict.fromkeys(NAMES, "different")
    worst = max(found["evidence"]["tensors"], key=lambda record: record["relative_l2"])
    assert worst["relative_l2"] > 0.1
    assert repr(worst["tensor"]) in str(caught.value)


def test_a_constant_rounded_to_float32_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = float(np.float32(activation._SELU_SCALE))
    monkeypatch.setattr(activation, "_SELU_SCALE", rounded)
    with pytest.raises(ValidationError, match="'gradient/"):
        check(network)


def test_a_kernel_in_float32_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_single_precision(node: Any, right: Any) -> Any:
        (output,) = right(node)
        output.values = {k: node.cast(node.cast(v, np.float32), np.float64) for k, v in output.values.items()}
        return [output]

    replace_rule(monkeypatch, "Tanh", in_single_precision)
    with pytest.raises(ValidationError) as caught:
        check(network)
    (found,) = caught.value.details["checks"]
    assert all(1e-10 < record["relative_l2"] < 1e-6 for record in found["evidence"]["tensors"])


def test_a_wrong_gradient_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Sin", scaled(1 + 1e-8))
    with pytest.raises(ValidationError, match=r"'gradient/w' .* by 1e-08 of its size"):
        # Only the derivative of cos(w) holds a sine.
        check(lambda x, w: tf.reduce_sum(x**2) + tf.reduce_sum(tf.cos(w)))


def test_a_wrong_integer_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Maximum", lambda node, right: RULES["Minimum"].apply(node))
    numbers = {"n": np.arange(5, dtype=np.int32)}
    with pytest.raises(ValidationError, match="'new/n'"):
        check_float64("gradients", named_graph(lambda n: tf.maximum(n, 3), numbers, ["new/n"]), numbers)


def test_a_wrong_tensor_that_is_small_but_not_zero_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Sin", scaled(1 + 1e-3))
    with pytest.raises(ValidationError, match="'gradient/w'"):
        check(lambda x, w: 1e4 * tf.reduce_sum(x**2) + 1e-6 * tf.reduce_sum(tf.cos(w)))


def test_a_new_state_is_judged_by_its_change(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"w": W, "u": W, "x": X}

    def step(w: Any, u: Any, x: Any) -> list[Any]:
        return [w + 1e-5 * tf.exp(w), u + 1e-17 * tf.exp(w) + 0.0 * tf.reduce_sum(x)]

    replace_rule(monkeypatch, "Exp", scaled(1 + 1e-6))
    with pytest.raises(ValidationError, match="'new/w'") as caught:
        check_float64("apply_gradients", named_graph(step, values, ["new/w", "new/u"]), values)
    (found,) = caught.value.details["checks"]
    assert rules(found) == {"new/w": "different", "new/u": "rounding"}


def test_infinity_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Tanh", scaled(np.inf))
    with pytest.raises(ValidationError, match="by all of it"):
        check(network)


# -- rounding that is no error


def test_what_cancels_is_zero() -> None:
    def normalised(x: Any, b: Any) -> Any:
        y = x * x + b
        return tf.reduce_sum((y - tf.reduce_mean(y, 0)) ** 3)

    result = check(normalised, {"x": X, "b": W[:1, :4]}, ["loss", "gradient/x", "gradient/b"])
    assert rules(result) == {"loss": "rounding", "gradient/x": "rounding", "gradient/b": "zero"}
    assert result["message"] == "2 tensors agree with TensorFlow's to 1e-10; 1 are zero but for rounding"


THREE = {"x": np.full((1,), 3, np.float32)}


def amplified(factor: float) -> NamedGraph:
    """1, but for the rounding of exp(x) times the factor."""
    return named_graph(lambda x: tf.reduce_sum(1.0 + factor * (tf.exp(x) - tf.exp([3.0]))), THREE, ["loss"])


def test_what_the_model_amplifies_is_told_from_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    # One rounding more, as another order of summation would make.
    replace_rule(monkeypatch, "Exp", scaled(1 + 2.0**-52))
    result = check_float64("gradients", amplified(1e9), THREE)
    assert rules(result) == {"loss": "noise"}
    assert "; 1 differ by no more than rounding" in result["message"]
    replace_rule(monkeypatch, "Exp", scaled(1 + 1e-12))
    with pytest.raises(ValidationError, match="'loss'"):
        check_float64("gradients", amplified(1e9), THREE)


def test_what_is_nothing_but_amplified_rounding_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Exp", scaled(1 + 2.0**-52))
    assert "'loss' is not determined" in not_available(check_float64("gradients", amplified(1e18), THREE))


# -- what cannot be compared


def not_available(result: dict[str, Any]) -> str:
    assert result["passed"]
    assert result["evidence"]["status"] == "not available"
    assert result["message"] == f"not available: {result['evidence']['reason']}"
    return str(result["evidence"]["reason"])


def test_operations_without_float64_are_named() -> None:
    assert "ResizeBilinear" in not_available(
        check(lambda x, w: tf.reduce_sum(tf.image.resize(x[None, ..., None], (6, 6))) + tf.reduce_sum(w))
    )


def test_operations_without_a_rule_for_float64_are_named() -> None:
    reason = not_available(check(lambda x, w: tf.reduce_sum(tf.atan(x)) + tf.reduce_sum(w)))
    assert "cannot be lowered in float64 (Atan: " in reason


def test_large_graphs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float64, "_MOST_ELEMENTS", X.size + W.size)
    assert check(network)["evidence"]["status"] == "compared"
    monkeypatch.setattr(float64, "_MOST_ELEMENTS", X.size + W.size - 1)
    assert "32 elements" in not_available(check(network))


def test_a_reference_that_is_not_finite_decides_nothing() -> None:
    assert "'loss' is not finite" in not_available(check(lambda x, w: tf.reduce_sum(tf.math.log(x)) + tf.reduce_sum(w)))


def test_a_missing_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def direct(node: Any, right: Any) -> Any:
        node.outputs[0].values = {Layout.PLAIN: node.emit("Erf", *node.values())}
        return node.outputs

    replace_rule(monkeypatch, "Erf", direct)
    reason = not_available(check(lambda x, w: tf.reduce_sum(tf.math.erf(x) @ w)))
    assert "no float64 kernel: Could not find an implementation for Erf" in reason


def test_a_rule_that_mixes_precisions_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(node: Any, right: Any) -> Any:
        (output,) = right(node)
        output.values = {k: node.emit("Mul", v, np.ones((1, 1), np.float32)) for k, v in output.values.items()}
        return [output]

    replace_rule(monkeypatch, "Tanh", narrow)
    assert "onnxruntime refuses its float64 form" in not_available(check(network))


def test_large_images_are_compared_on_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"x": RANDOM.normal(size=(8, 4)).astype(np.float32)}
    named = named_graph(lambda x: x * 2, values, ["output"], dynamic=True)
    for elements, examples in ((50_000, 8), (20, 5), (1, 2)):
        monkeypatch.setattr(float64_pair, "_INPUT_ELEMENTS", elements)
        pair = float64_pair.Float64Pair(named, values, constants=[], filters=[], opset=18)
        assert pair.lowered(pair.values)["output"].shape == (examples, 4)
