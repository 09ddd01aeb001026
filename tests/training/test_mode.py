"""The report says in which mode the step trains, from what the graph does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
import tf_keras

import graphfreeze
from graphfreeze import Selection
from tests.training.models import everything


def mode_of(model: Path, out: Path, selector: str, endpoint: str) -> dict[str, Any]:
    selections = [Selection("freeze", selector)]
    report = graphfreeze.rewrite(model, out, selections, loss="mse", endpoint=endpoint, checks="none")
    mode: dict[str, Any] = report["training"]["mode"]
    return mode


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model"
    graphfreeze.export(everything(), path)
    return path


def test_training_mode_names_what_it_updates_and_counts_what_it_draws(exported: Path, tmp_path: Path) -> None:
    mode = mode_of(exported, tmp_path / "out", "first/bias", "train")
    assert mode["name"] == "training"
    assert mode["message"] == "training mode: updates 2 statistics and draws 2 random tensors"
    assert mode["updated_statistics"] == ["norm/moving_mean", "norm/moving_variance"]
    assert len(mode["advanced_seeds"]) == 2
    assert mode["unchanged"] == []


def test_inference_mode(exported: Path, tmp_path: Path) -> None:
    mode = mode_of(exported, tmp_path / "out", "first/bias", "serve")
    assert mode["name"] == "inference"
    assert mode["message"].startswith("inference mode: nothing is drawn at random and no statistic is updated")
    assert mode["unchanged"] == ["norm/moving_mean", "norm/moving_variance"]
    assert (mode["random_draws"], mode["batch_statistics"], mode["advanced_seeds"]) == (0, 0, [])


def test_statistics_of_the_batch_are_training_mode_even_if_nobody_keeps_them(tmp_path: Path) -> None:
    module = tf.Module()
    module.scale = tf.Variable([1.0, 2.0], name="scale")

    @tf.function(input_signature=[tf.TensorSpec((None, 3, 3, 2), name="x")])
    def call(x: Any) -> Any:
        return tf.compat.v1.nn.fused_batch_norm(x, module.scale, tf.zeros(2), is_training=True)[0]

    module.serve = call
    tf.saved_model.save(module, str(tmp_path / "model"))
    mode = mode_of(tmp_path / "model", tmp_path / "out", "scale[0]", "serve")
    assert mode["message"] == "training mode: normalizes by the batch's own statistics in 1 place"


def test_layer_normalization_of_keras_2_is_none_of_the_batch(tmp_path: Path) -> None:
    """It is computed by the operation of batch normalization, each example as a channel of its own."""
    hidden = [tf_keras.layers.Dense(4, name="first"), tf_keras.layers.LayerNormalization(), tf_keras.layers.Dense(2)]
    tf_keras.Sequential([tf_keras.Input((3,)), *hidden]).save(tmp_path / "model")
    mode = mode_of(tmp_path / "model", tmp_path / "out", "first/bias[0]", "serving_default")
    assert (mode["name"], mode["batch_statistics"]) == ("inference", 0)


def test_a_model_without_such_layers_claims_nothing(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")]).export(tmp_path / "m", verbose=False)
    mode = mode_of(tmp_path / "m", tmp_path / "out", "**/bias", "serve")
    assert mode["name"] == "inference"
    assert mode["message"].endswith("if the model has any)")
