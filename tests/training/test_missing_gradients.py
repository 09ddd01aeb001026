"""Operations that TensorFlow has no gradient of train where only inputs reach them, as in Keras' fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.errors import UnsupportedError
from graphfreeze.training.missing_gradients import none_for_missing_gradients

L = keras.layers


def resized(*before: Any) -> Any:
    x = h = keras.Input((8, 8, 2), name="x")
    for layer in (*before, L.Resizing(5, 3, interpolation="area")):
        h = layer(h)
    return keras.Model(x, L.Dense(3, name="dense")(L.Flatten()(h)), name="model")


def rewritten(model: Any, directory: Path, selector: str = "dense/kernel[0, 0]") -> graphfreeze.Trainer:
    graphfreeze.export(model, directory / "model")
    selections = [graphfreeze.Selection("freeze", selector)]
    graphfreeze.rewrite(directory / "model", directory / "out", selections, loss="mse", endpoint="train", checks="none")
    return graphfreeze.Trainer(directory / "out", device="cpu")


def test_the_gradient_is_that_of_keras(tmp_path: Path) -> None:
    model = resized()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 8, 8, 2)).astype("float32"), rng.normal(size=(4, 3)).astype("float32")
    with tf.GradientTape() as tape:
        loss = keras.losses.MeanSquaredError()(y, model(x, training=True))
    expected = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    before = [variable.numpy() for variable in model.trainable_variables]
    trainer = rewritten(model, tmp_path)
    assert trainer.step({"x": x, "y": y}) == pytest.approx(float(loss), rel=1e-6)
    for variable, value, gradient in zip(model.trainable_variables, before, expected, strict=True):
        moved = (value - trainer.weights()[variable.path.removeprefix("model/")]) / 0.01
        mask = np.ones(value.shape, bool)
        mask[(0,) * value.ndim] = value.ndim == 1
        np.testing.assert_allclose(moved[mask], gradient.numpy()[mask], atol=1e-4)


@pytest.mark.parametrize("is_branch", [False, True], ids=["on the way", "on one of two ways"])
def test_before_a_variable_it_is_refused(is_branch: bool, tmp_path: Path) -> None:
    x = keras.Input((8, 8, 2), name="x")
    h = L.Conv2D(2, 1, name="convolution")(x)
    parts = [L.Flatten()(L.Resizing(5, 3, interpolation="area")(h)), *([L.Flatten()(h)] if is_branch else [])]
    model = keras.Model(x, L.Dense(3, name="dense")(parts[0] if len(parts) == 1 else L.Concatenate()(parts)))
    with pytest.raises(UnsupportedError, match=r"no gradient of ResizeArea .* loss depends on variables"):
        rewritten(model, tmp_path)


def test_behind_a_frozen_variable_it_is_not(tmp_path: Path) -> None:
    model = resized(L.Conv2D(2, 1, name="convolution"))
    trainer = rewritten(model, tmp_path, "convolution/*")
    x, y = np.ones((4, 8, 8, 2), "float32"), np.ones((4, 3), "float32")
    assert np.isfinite(trainer.step({"x": x, "y": y}))


def test_elsewhere_it_stays_an_error() -> None:
    def function(x: Any) -> Any:
        return tf.raw_ops.ResizeArea(images=x, size=[2, 2])

    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    x = tf.ones((1, 4, 4, 1))
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec((1, 4, 4, 1)))
    with none_for_missing_gradients(concrete) as asked:
        assert gradient(x) is None
    assert asked == {"ResizeArea"}
    with pytest.raises(LookupError, match="No gradient defined for ResizeArea"):
        gradient(x)
