"""`keras.layers.TFSMLayer` takes the rewritten model into a Keras model, which trains with `compile` and `fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze

from .conftest import Rewritten, values


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
