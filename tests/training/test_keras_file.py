"""Export of Keras files and models: what is written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import UnsupportedError
from graphfreeze.savedmodel.model import SavedModel
from tests.training.models import data_for, everything, masked_sequence, two_outputs

# -- what is written


def test_serve_predicts_and_train_trains_for_batches_of_any_size(file: Path, tmp_path: Path) -> None:
    report = graphfreeze.export(file, tmp_path / "model")
    model = keras.models.load_model(file)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    batches = [data_for(model)["x"][:examples] for examples in (1, 7)]
    for x in batches:
        np.testing.assert_allclose(loaded.serve(x), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)
    for x in batches:
        trained = loaded.train(x)
        assert trained["output_0"].shape == (len(x), 3)
        assert not np.allclose(trained["output_0"], loaded.serve(x))
        assert trained["graphfreeze_losses"].shape == ()
    assert sorted(loaded.signatures) == ["serve", "serving_default", "train"]
    assert report["endpoints"] == [
        {"name": "serve", "inputs": [{"name": "x", "shape": [None, 5], "dtype": "float32"}], "outputs": ["output_0"]},
        {
            "name": "train",
            "inputs": [{"name": "x", "shape": [None, 5], "dtype": "float32"}],
            "outputs": ["graphfreeze_losses", "output_0"],
        },
    ]
    assert (report["variables"], report["trainable_variables"], report["adds_losses"]) == (12, 8, True)


def test_every_variable_is_there_once_and_trains_as_keras_says(tmp_path: Path) -> None:
    model = everything()
    model.get_layer("first").trainable = False
    graphfreeze.export(model, tmp_path / "model")
    found = SavedModel.load(tmp_path / "model").variables
    assert sorted(v.name for v in found) == sorted(v.path for v in model.variables)
    assert {v.name for v in found if v.trainable} == {v.path for v in model.trainable_variables}
    assert len(tf.saved_model.load(str(tmp_path / "model")).variables) == len(model.variables)
    # The model itself goes on as it was.
    assert all(v.value.trainable for v in model.get_layer("first").variables)


def test_outputs_are_named_as_in_compile(tmp_path: Path) -> None:
    x = keras.Input((2,), name="x")
    named = keras.Model(x, {"b": keras.layers.Dense(1)(x), "a": keras.layers.Dense(2)(x)})
    for name, model, expected in (
        ("list", two_outputs(), ["idle", "label", "value"]),
        ("dict", named, ["a", "b"]),
        ("one", masked_sequence(), ["output_0"]),
    ):
        report = graphfreeze.export(model, tmp_path / name)
        assert report["endpoints"][0]["outputs"] == expected
        beside = {"graphfreeze_losses", "graphfreeze_mask.output_0"}
        assert [n for n in report["endpoints"][1]["outputs"] if n not in beside] == expected


def test_states_tables_and_constraints(tmp_path: Path) -> None:
    """What belongs to a model without being a weight: kept, or named where a SavedModel cannot hold it."""
    ids = keras.Input(batch_shape=(3, 4), dtype="int64", name="ids")
    h = keras.layers.IntegerLookup(vocabulary=[3, 5, 7], name="lookup")(ids)
    h = keras.layers.Embedding(4, 2, embeddings_constraint="non_neg", name="embedding")(h)
    model = keras.Model(ids, keras.layers.LSTM(2, stateful=True, name="lstm")(h))
    report = graphfreeze.export(model, tmp_path / "model")
    assert report["constraints"] == ["embedding/embeddings"]
    assert report["endpoints"][0]["inputs"][0]["shape"] == [3, 4]
    batch = np.array([[3, 5, 7, 9], [3, 3, 3, 3], [7, 7, 7, 7]])
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    first, second = loaded.serve(batch), loaded.serve(batch)
    np.testing.assert_allclose(first, model(batch), rtol=1e-6)
    np.testing.assert_allclose(second, model(batch), rtol=1e-6)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("nested", [False, True])
def test_a_layer_for_each_time_step_of_open_length_is_refused(nested: bool, tmp_path: Path) -> None:
    """Keras would trace it with as many time steps as the batch has examples; `fit` runs it with those of the data."""

    def timed(length: int | None) -> Any:
        x = keras.Input((length, 3))
        return keras.Model(x, keras.layers.TimeDistributed(keras.layers.Dense(2), name="timed")(x), name="inner")

    def built(length: int | None) -> Any:
        if not nested:
            return timed(length)
        x = keras.Input((length, 3))
        return keras.Model(x, timed(length)(x))

    with pytest.raises(UnsupportedError, match=r"TimeDistributed .*timed.* sequences of open length"):
        graphfreeze.export(built(None), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    graphfreeze.export(built(4), tmp_path / "model")


def test_a_model_of_ones_own_class(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model = Own()
    with pytest.raises(UnsupportedError, match="not built: call it on data once"):
        graphfreeze.export(model, tmp_path / "model")
    x = np.ones((2, 3), np.float32)
    expected = model(x)
    graphfreeze.export(model, tmp_path / "model")
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.serve(x), expected, rtol=1e-6)


def test_a_model_of_ones_own_class_that_takes_a_dictionary(tmp_path: Path) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.first, self.second = keras.layers.Dense(2), keras.layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return {"one": self.first(inputs["a"]), "two": self.second(inputs["b"])}

    model = Own()
    batch = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 4), np.float32)}
    expected = model(batch)
    report = graphfreeze.export(model, tmp_path / "model")
    assert [entry["name"] for entry in report["endpoints"][0]["inputs"]] == ["a", "b"]
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    found = loaded.signatures["train"](**{name: tf.constant(value) for name, value in batch.items()})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6)
    selections = [graphfreeze.Selection("freeze", "**/kernel[0]")]
    losses = ["one=mse", "two=mse"]
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", selections, loss=losses, endpoint="train")


def test_an_h5_file_gives_the_same_model(file: Path, tmp_path: Path) -> None:
    model = keras.models.load_model(file)
    model.save(tmp_path / "model.h5")
    graphfreeze.export(tmp_path / "model.h5", tmp_path / "model")
    x = data_for(model)["x"]
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded.serve(x), model.predict(x, verbose=0), rtol=1e-6, atol=1e-6)


def test_seeds_that_the_file_lacks_come_from_the_option(file: Path, tmp_path: Path) -> None:
    random.seed(3)
    before = random.getstate()
    seeds = []
    for seed in (0, 0, 1):
        graphfreeze.export(file, tmp_path / "model", seed=seed, overwrite=True)
        loaded = tf.saved_model.load(str(tmp_path / "model"))
        seeds.append([v.numpy().tolist() for v in loaded.variables if v.dtype.is_integer])
    assert len(seeds[0]) == 2
    assert seeds[0] == seeds[1]
    assert seeds[0] != seeds[2]
    assert random.getstate() == before


def test_the_same_file_gives_the_same_bytes_in_every_process(file: Path, tmp_path: Path) -> None:
    found = []
    for name, hash_seed in (("a", "1"), ("b", "2")):
        command = [sys.executable, "-m", "graphfreeze", "export", str(file), str(tmp_path / name), "-q"]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found.append({path.relative_to(tmp_path / name): path.read_bytes() for path in files})
    assert found[0].keys() == found[1].keys()
    assert [path for path in found[0] if found[0][path] != found[1][path]] == []
