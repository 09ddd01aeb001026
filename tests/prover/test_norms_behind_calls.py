"""Norms of gradients that functions are given or return, and of gradients with a multiple of the weight in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from tests.passes.training_models import VARIABLES, Trained, _keras_3_variables, save
from tests.prover.finding import find, find_in_step
from tests.prover.steps import Made, momentum


def clip(*gradients: Any) -> Any:
    return tf.clip_by_global_norm(list(gradients), 0.1)[0]


# -- Keras' scaling of the loss


def scaled(**clipping: float) -> Trained:
    inner = keras.optimizers.SGD(0.1, momentum=0.9, **clipping)
    return _keras_3_variables(keras.optimizers.LossScaleOptimizer(inner))


@pytest.mark.parametrize("clipping", ["global_clipnorm", "clipnorm"])
def test_clipping_of_a_scaled_loss(tmp_path: Path, clipping: str) -> None:
    """The gradients are arguments of a branch; a scalar variable scales them; those of the embedding are sparse."""
    found = find(save(scaled(**{clipping: 0.01}), tmp_path / "in"), VARIABLES)
    assert found.norms == [(name, "Sum") for name in sorted(VARIABLES)]
    assert {name: len(slots) for name, slots in found.slots.items()} == dict.fromkeys(VARIABLES, 1)


# -- functions


def clipped_elsewhere(m: Any, g: Any, x: Any) -> Any:
    m.v.assign_sub(momentum(m, tf.function(clip)(g)[0]))
    return tf.reduce_sum(x)


def clipped_two_calls_away(m: Any, g: Any, x: Any) -> Any:
    inner = tf.function(clip)
    outer = tf.function(lambda g: inner(g * 2.0)[0] * 0.5)
    m.v.assign_sub(momentum(m, outer(g)))
    return tf.reduce_sum(x)


def updated_elsewhere(m: Any, g: Any, x: Any) -> Any:
    """The norm is computed here, and reaches the update as an argument."""

    @tf.function
    def update(g: Any, norm: Any) -> Any:
        m.v.assign_sub(momentum(m, g / norm))

    update(g, tf.norm(g))
    return tf.reduce_sum(x)


def momentum_elsewhere(m: Any, g: Any, x: Any) -> Any:
    m.v.assign_sub(tf.function(lambda g: momentum(m, g))(clip(g)[0]))
    return tf.reduce_sum(x)


def momentum_in_branches(m: Any, g: Any, x: Any) -> Any:
    m.v.assign_sub(tf.cond(tf.reduce_sum(x) > 0, lambda: momentum(m, clip(g)[0]), lambda: m.s * 0.5))
    return tf.reduce_sum(x)


def with_weights_of_its_own(m: Any, g: Any, x: Any) -> Any:
    """A function returns the gradient, and in another place a weight."""
    both = tf.function(lambda x: (tf.matmul(x, x), m.r * 2.0))
    m.v.assign_sub(momentum(m, clip(both(x)[0])[0]))
    return tf.reduce_sum(x)


FOUND: dict[str, tuple[Made, str]] = {
    "clipped elsewhere": (clipped_elsewhere, "L2Loss"),
    "clipped two calls away": (clipped_two_calls_away, "L2Loss"),
    "updated elsewhere": (updated_elsewhere, "Sum"),
    "momentum elsewhere": (momentum_elsewhere, "L2Loss"),
    "momentum in branches": (momentum_in_branches, "L2Loss"),
    "with weights of its own": (with_weights_of_its_own, "L2Loss"),
}


@pytest.mark.parametrize("name", FOUND)
def test_values_are_followed_into_and_out_of_functions(tmp_path: Path, name: str) -> None:
    made, operation = FOUND[name]
    found = find_in_step(made, tmp_path, "v")
    assert (found.slots, found.norms) == ({"v": {"s"}}, [("v", operation)])


def test_one_function_clips_for_two_variables(tmp_path: Path) -> None:
    """Its one norm has no mask that is right for both. Two of it would have."""

    def made(together: bool) -> Made:
        def step(m: Any, g: Any, x: Any) -> Any:
            one, other = (tf.function(clip) for _ in range(2))
            m.v.assign_sub(momentum(m, one(g)[0]))
            m.u.assign_sub(momentum(m, (one if together else other)(g * 2.0)[0], "t"))
            return tf.reduce_sum(x)

        return step

    slots = {"u": {"t"}, "v": {"s"}}
    found = find_in_step(made(together=True), tmp_path / "one", "u", "v")
    assert (found.slots, found.norms) == (slots, [])
    found = find_in_step(made(together=False), tmp_path / "two", "u", "v")
    assert (found.slots, found.norms) == (slots, [("u", "L2Loss"), ("v", "L2Loss")])


def test_a_slot_that_an_endpoint_is_given_is_none(tmp_path: Path) -> None:
    """What is returned to a caller inside of the model is, while nothing else calls the function."""

    class Shared(tf.Module):
        def __init__(self, public: bool) -> None:
            super().__init__()
            self.v, self.s = tf.Variable(tf.ones([3, 3])), tf.Variable(tf.ones([3, 3]), trainable=False)
            inner: Any = tf.function(lambda g: momentum(self, g), input_signature=[tf.TensorSpec([3, 3])])
            if public:
                self.inner = inner
            self._call: Callable[[Any], Any] = lambda g: inner(g)

        @tf.function(input_signature=[tf.TensorSpec([3, 3])])
        def train(self, x: Any) -> Any:
            self.v.assign_sub(self._call(tf.matmul(x, x)))
            return tf.reduce_sum(x)

    for public in (False, True):
        path = tmp_path / str(public)
        tf.saved_model.save(Shared(public), str(path))
        assert len(find(path, ["v"]).slots) == (0 if public else 1)


def test_a_function_that_other_endpoints_run_too_has_no_norm(tmp_path: Path) -> None:
    """It stays as it is for these, and goes by one name. A step's own body is theirs only where they call it."""

    class Both(tf.Module):
        def __init__(self, together: bool) -> None:
            super().__init__()
            self.v = tf.Variable(tf.ones([3, 3]), name="v")
            shared: Any = tf.function(clip)
            spec = [tf.TensorSpec([3, 3])]
            for name in ("train_a", "train_b"):
                clipper = shared if together else tf.function(clip)
                setattr(self, name, tf.function(self._step(clipper), input_signature=spec))

        def _step(self, clipper: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def step(x: Any) -> Any:
                self.v.assign_sub(clipper(tf.matmul(x, x))[0])
                return tf.reduce_sum(x)

            return step

    for together, count in ((True, 0), (False, 1)):
        path = tmp_path / str(together)
        tf.saved_model.save(Both(together), str(path))
        assert find(path, ["v"], ["train_b"]).norms == [("v", "L2Loss")] * count
        assert find(path, ["v"]).norms == [("v", "L2Loss")] * (1 if together else 2)


# -- losses are no norms


def residual(m: Any, g: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        loss = tf.sqrt(tf.reduce_sum((m.v - x) ** 2))
    m.v.assign_sub(tape.gradient(loss, m.v))
    return loss


def residual_elsewhere(m: Any, g: Any, x: Any) -> Any:
    """The weight's value is an argument."""
    of = tf.function(lambda w, x: tf.sqrt(tf.reduce_sum((w - x) ** 2)))
    with tf.GradientTape() as tape:
        loss = of(m.v, x)
    m.v.assign_sub(tape.gradient(loss, m.v))
    return loss


def residual_of_what_is_returned(m: Any, g: Any, x: Any) -> Any:
    """The weight's value is what a function returns."""
    of = tf.function(lambda x: m.v - x)
    with tf.GradientTape() as tape:
        loss = tf.sqrt(tf.reduce_sum(of(x) ** 2))
    m.v.assign_sub(tape.gradient(loss, m.v))
    return loss


def residual_that_scales(m: Any, g: Any, x: Any) -> Any:
    """What is squared is only known to the caller of the step."""
    loss = tf.sqrt(tf.reduce_sum(x**2))
    m.v.assign_sub(x * loss)
    return tf.reduce_sum(g)


LOSSES: dict[str, Made] = {
    "residual": residual,
    "residual elsewhere": residual_elsewhere,
    "residual of what is returned": residual_of_what_is_returned,
    "residual that scales": residual_that_scales,
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_root_of_a_loss_is_no_norm(tmp_path: Path, name: str) -> None:
    assert find_in_step(LOSSES[name], tmp_path, "v").norms == []


# -- regularisers


def penalised(penalty: Callable[[Any], Any], clipper: Callable[..., Any] = clip) -> Made:
    def made(m: Any, g: Any, x: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.tanh(tf.matmul(x, m.v)) ** 2) + penalty(m.v)
        m.v.assign_sub(momentum(m, clipper(tape.gradient(loss, m.v))[0]))
        return loss

    return made


REGULARISED: dict[str, Made] = {
    "squares": penalised(lambda w: 0.1 * tf.reduce_sum(tf.square(w))),
    "Keras": penalised(keras.regularizers.L2(0.1)),
    "magnitudes": penalised(lambda w: 0.1 * tf.reduce_sum(tf.abs(w))),
    "elsewhere": penalised(lambda w: 0.1 * tf.nn.l2_loss(w), tf.function(clip)),
}


@pytest.mark.parametrize("name", REGULARISED)
def test_a_gradient_beside_a_multiple_of_the_weight_counts(tmp_path: Path, name: str) -> None:
    found = find_in_step(REGULARISED[name], tmp_path, "v")
    assert (found.slots, found.norms) == ({"v": {"s"}}, [("v", "L2Loss")])


def test_a_sum_without_a_gradient_does_not_count(tmp_path: Path) -> None:
    """Neither does a constant make it one, nor what the step is given, nor another variable."""

    def made(other: Callable[[Any, Any], Any]) -> Made:
        def step(m: Any, g: Any, x: Any) -> Any:
            update = tf.add_n([m.v * 0.1, other(m, x)])
            m.v.assign_sub(update / tf.norm(update))
            return tf.reduce_sum(g)

        return step

    def norms(name: str, other: Callable[[Any, Any], Any]) -> list[tuple[str, str]]:
        return find_in_step(made(other), tmp_path / name, "v").norms

    assert norms("constant", lambda m, x: tf.ones([3, 3])) == []
    assert norms("given", lambda m, x: x * 2.0) == []
    assert norms("variable", lambda m, x: tf.matmul(x, x) * m.u) == []
    assert norms("gradient", lambda m, x: tf.matmul(x, x) * 2.0) == [("v", "Sum")]
