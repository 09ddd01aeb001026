"""`keras.layers.TFSMLayer` takes the rewritten model into a Keras model, which trains with `compile` and `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze

from .conftest import Rewritten, rewrite, values


def optimizer(name: str) -> Any:
    """One whose weight decay moves elements without a gradient."""
    if name == "sgd":
        return keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.1)
    return keras.optimizers.AdamW(0.01, weight_decay=0.1)


@pytest.mark.parametrize("endpoint", ["serve", "serving_default"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_fit_keeps_the_freeze(rewritten: Rewritten, tmp_path: Path, name: str, endpoint: str) -> None:
    layer = keras.layers.TFSMLayer(str(rewritten.saved_model), call_endpoint=endpoint)
    inputs = keras.Input((4,))
    outputs = layer(inputs)
    # A signature yields a dictionary.
    model = keras.Model(inputs, outputs["output_0"] if isinstance(outputs, dict) else outputs)
    training = optimizer(name)
    # Keras makes slot variables by the weights' names, of which it refuses those of a loaded model; see the guide.
    training.build([weight.value for weight in model.trainable_weights])
    model.compile(training, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(rewritten.x, rewritten.y, batch_size=8, epochs=3, verbose=0)
    found = np.asarray(model(rewritten.x))
    rewritten.check_trained(values(layer._reloaded_obj), found)
    state = tf.train.Checkpoint(model=model).write(str(tmp_path / "state"))
    graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=state)
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    assert folded.serve(rewritten.x).numpy().tobytes() == found.tobytes()


class Regularised(keras.layers.TFSMLayer):
    """The endpoint `train` yields the regularisers' losses beside the outputs; `serve` the outputs alone."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = super().call(inputs, training=training)
        if training:
            self.add_loss(outputs["graphfreeze_losses"])
            return outputs["output_0"]
        return outputs


@pytest.mark.parametrize("regularizer", [None, "l2"])
def test_fit_in_training_mode(tmp_path: Path, regularizer: str | None) -> None:
    """Dropout is on, statistics are updated, and regularisers count, as in the `fit` of the model itself."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, activation="tanh", name="hidden", kernel_regularizer=regularizer),
        keras.layers.BatchNormalization(name="bn"),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(3, name="out", bias_initializer="random_normal"),
    ]
    source = keras.Sequential([keras.Input((4,), name="x"), *layers], name="net")
    graphfreeze.export(source, tmp_path / "model")
    trained = rewrite(tmp_path / "model", tmp_path / "out")
    kind = Regularised if regularizer else keras.layers.TFSMLayer
    layer = kind(str(trained.saved_model), call_endpoint="serve", call_training_endpoint="train")
    model = keras.Sequential([keras.Input((4,)), layer])
    training = optimizer("adamw")
    training.build([weight.value for weight in model.trainable_weights])
    model.compile(training, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = values(layer._reloaded_obj)
    history = model.fit(trained.x, trained.y, batch_size=8, epochs=2, verbose=0).history["loss"]
    trained.check_trained(values(layer._reloaded_obj), np.asarray(model(trained.x)))
    moved = {path for path, value in values(layer._reloaded_obj).items() if np.any(value != before[path])}
    # All weights, both statistics, and the seed of the dropout.
    assert moved == set(before)
    assert np.isfinite(history).all()
    if regularizer:
        model(trained.x, training=True)
        (kernel,) = (entry for entry in trained.plan.variables if entry.variable.name == "net/hidden/kernel")
        effective = np.where(kernel.full_mask, values(layer._reloaded_obj)[kernel.variable.object_path], kernel.value)
        np.testing.assert_allclose(model.losses, [0.01 * np.sum(effective**2)], rtol=1e-5)


def test_what_is_trainable_stays_so(rewritten: Rewritten) -> None:
    layers = [keras.layers.TFSMLayer(str(path)) for path in (rewritten.original, rewritten.saved_model)]
    shapes = [[tuple(w.shape) for w in layer.trainable_weights] for layer in layers]
    assert shapes[0] == shapes[1] != []


def test_the_guide_is_needed(rewritten: Rewritten) -> None:
    """The original fails in the same way: where a later Keras does not, the guide is out of date."""
    for path in (rewritten.original, rewritten.saved_model):
        model = keras.Sequential([keras.Input((4,)), keras.layers.TFSMLayer(str(path))])
        model.compile(optimizer("adamw"), "mse")
        with pytest.raises(ValueError, match="is not a valid scope name"):
            model.fit(rewritten.x, np.zeros((32, 3)), verbose=0)
