from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks import reference
from graphfreeze.checks.reference import compute_reference, restored, run_gradients
from graphfreeze.training.traced_step import TracedStep
from graphfreeze.validation.tolerance import unit_roundoff

from .conftest import Exported


def values(step: TracedStep) -> dict[str, bytes]:
    variables = [(p.name, p.resource) for p in step.parameters]
    variables += [(v.name, v.variable) for v in step.optimizer_variables]
    return {name: variable.numpy().tobytes() for name, variable in variables}


def test_loss_and_gradients_are_those_of_a_tape(exported: Callable[[str], Exported]) -> None:
    model = exported("cnn")
    step, batch = model.trace(), model.batch()
    found = compute_reference(step, batch, seed=0)
    resources = [p.resource for p in step.trained]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(resources)
        scores = step.endpoint({"x": tf.constant(batch["x"])})[0]
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["y"], scores))
    np.testing.assert_allclose(found.losses["loss"], loss, rtol=1e-6)
    for p, gradient in zip(step.trained, tape.gradient(loss, resources), strict=True):
        np.testing.assert_allclose(found.gradients[p.name], gradient, rtol=1e-5, atol=1e-7)
    (kernel,) = (p for p in step.parameters if p.frozen is not None)
    assert kernel.frozen is not None
    assert not found.gradients[kernel.name][~kernel.frozen.full_mask].any()


def test_noise_is_that_of_rounding(exported: Callable[[str], Exported]) -> None:
    model = exported("mlp")
    step, batch = model.trace(), model.batch()
    found = compute_reference(step, batch, seed=0)
    assert 0 < found.loss_noise["loss"] < 1e-6 * found.losses["loss"]
    assert found.gradients.keys() == found.noise.keys() == {p.name for p in step.trained}
    for name, gradient in found.gradients.items():
        assert 1e-9 < found.noise[name] / np.max(np.abs(gradient)) < 1e-5
    assert compute_reference(step, batch, seed=0).noise == found.noise
    assert compute_reference(step, batch, seed=1).noise != found.noise


def test_a_chaotic_step_has_much_noise(exported: Callable[[str], Exported]) -> None:
    model = exported("normalised")
    step, batch = model.trace(), model.batch(2)
    # Two equal examples: batch normalization divides their difference, which is rounding, by itself.
    batch["x"][1] = batch["x"][0] * (1 + 2e-7)
    found = compute_reference(step, batch, seed=0)
    assert max(found.noise[name] / np.max(np.abs(g), initial=1e-30) for name, g in found.gradients.items()) > 1e-3


def test_variables_are_restored(exported: Callable[[str], Exported]) -> None:
    model = exported("mlp")
    step, batch = model.trace(), model.batch()
    before = values(step)
    compute_reference(step, batch, seed=0)
    # Dropout's seed moves on in a step, and was put back: the same step gives the same numbers.
    first, second = run_gradients(step, batch), run_gradients(step, batch)
    assert first[0] == second[0]
    assert values(step) == before
    step.functions["gradients"](*(tf.constant(batch[entry.name]) for entry in step.batch))
    assert values(step) != before


def test_variables_are_restored_after_an_error(exported: Callable[[str], Exported]) -> None:
    step = exported("mlp").trace()
    before = values(step)
    with pytest.raises(ZeroDivisionError), restored(step):
        for p in step.parameters:
            p.resource.assign(tf.zeros_like(p.resource))
        raise ZeroDivisionError
    assert values(step) == before


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_numbers_move_by_their_own_unit(dtype: Any) -> None:
    numbers = np.random.default_rng(0).uniform(1.01, 1.99, 1000).astype(dtype)
    moved = reference._moved(numbers, np.random.default_rng(1))
    assert moved.dtype == numbers.dtype
    steps = (moved.astype(np.float64) - numbers.astype(np.float64)) / (2 * unit_roundoff(np.dtype(dtype)))
    assert np.max(np.abs(steps)) <= 2.5
    assert 0.2 < np.mean(steps != 0) <= 1


def test_whole_numbers_stay() -> None:
    rng = np.random.default_rng(0)
    for numbers in (np.arange(5), np.arange(5, dtype=np.float32), np.array([True, False])):
        np.testing.assert_array_equal(reference._moved(numbers, rng), numbers)
