"""Keras 2 saves on the whole way: rewrite, train endpoint, fold, rewrite again, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import graphfreeze
from graphfreeze.errors import UnsupportedError, UsageError, VerificationError
from graphfreeze.runtime import Trainer
from graphfreeze.training.endpoint import choose_endpoint, endpoint_names

from .conftest import Saved
from .models import inputs


def freeze(source: Path, out: Path, *selectors: str, **options: Any) -> dict[str, Any]:
    selections = [graphfreeze.Selection("freeze", text) for text in selectors]
    return graphfreeze.rewrite(source, out, selections, **options)


@pytest.fixture(scope="module")
def kept(saved: Saved, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OUT of a rewrite that keeps."""
    out = tmp_path_factory.mktemp("kept") / "out"
    report = freeze(saved("image"), out, "conv/kernel[0] := 0.25", onnx=False, keras2="keep", checks="none")
    assert [check["name"] for check in report["checks"]] == ["load_model of tf_keras keeps the freeze"]
    assert report["keras_2"] == {"load_model": "keep", "layers": ["conv"]}
    return out


def test_the_training_endpoint_is_that_of_fit(saved: Saved) -> None:
    loaded = tf.saved_model.load(str(saved("image")))
    model = tf_keras.models.load_model(str(saved("image")))
    assert {"__call__", "serving_default", "train"} <= set(endpoint_names(loaded))
    x = tf.constant(inputs("image"))
    for name, training in (("__call__", False), ("train", True)):
        endpoint = choose_endpoint(loaded, name)
        assert [entry.name for entry in endpoint.inputs] == ["image"]
        np.testing.assert_allclose(endpoint.named({"image": x})["output_0"], model(x, training=training), rtol=1e-5)
    losses = choose_endpoint(tf.saved_model.load(str(saved("image"))), "train").named({"image": x})[
        "graphfreeze_losses"
    ]
    np.testing.assert_allclose(losses, sum(model.losses), rtol=1e-5)


@pytest.mark.parametrize(("endpoint", "default"), [(None, "serving_default"), ("train", "train")])
def test_rewrite_trains_a_keras_2_save(saved: Saved, tmp_path: Path, endpoint: str | None, default: str) -> None:
    report = freeze(saved("image"), tmp_path / "out", "conv/kernel[0]", loss="mse", endpoint=endpoint, checks="static")
    assert report["training"]["endpoint"] == default
    assert report["training"]["forward_endpoint"] == "serving_default"
    assert graphfreeze.verify(saved("image"), tmp_path / "out")["passed"]
    assert graphfreeze.validate(tmp_path / "out", device="cpu")["passed"]
    np.savez(tmp_path / "data.npz", image=inputs("image"), y=np.zeros((5, 2), np.float32))
    trainer = Trainer(tmp_path / "out", device="cpu")
    losses = trainer.fit(tmp_path / "data.npz", epochs=3, batch_size=5)
    assert losses[-1] < losses[0]


def test_an_embedding_trains_as_in_keras_2(tmp_path: Path) -> None:
    """Keras 2 adds up the rows of an index before an optimizer squares them, other than Keras 3."""
    tf_keras.utils.set_random_seed(0)
    layers = [tf_keras.layers.Embedding(5, 3, name="words"), tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)]
    model = tf_keras.Sequential([tf_keras.Input((4,), dtype="int32", name="x"), *layers])
    model.save(tmp_path / "model")
    table = model.layers[0].embeddings
    start = table.numpy()
    freeze(tmp_path / "model", tmp_path / "out", "words/embeddings[4]", loss="mse", optimizer="adam:learning_rate=0.01")
    trainer = Trainer(tmp_path / "out", device="cpu")
    model.compile(tf_keras.optimizers.Adam(0.01), "mse")
    rng = np.random.default_rng(1)
    for _ in range(5):
        x, y = rng.integers(0, 4, (6, 4)).astype(np.int32), rng.normal(size=(6, 2)).astype(np.float32)
        model.fit(x, y, batch_size=6, verbose=0)
        trainer.step({trainer.artifact.manifest.batch[0].name: x, "y": y})
    moved = np.abs(table.numpy() - start).max()
    np.testing.assert_allclose(trainer.weights()["words/embeddings"], table.numpy(), rtol=0, atol=1e-4 * moved)


def test_constraints_are_named(tmp_path: Path) -> None:
    """Keras 2 saves nothing but their configuration: `fit` would apply them, the step does not."""
    dense = tf_keras.layers.Dense(2, kernel_constraint="non_neg", bias_constraint=None, name="positive")
    tf_keras.Sequential([tf_keras.Input((3,)), dense, tf_keras.layers.Dense(1)]).save(tmp_path / "model")
    report = freeze(tmp_path / "model", tmp_path / "out", "positive/bias[0]", loss="mse", checks="none")
    assert report["training"]["constraints_left_out"] == ["positive.kernel_constraint"]


def test_fold_gives_the_original_notes_back(saved: Saved, kept: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(kept / "saved_model"))
    for variable in loaded.trainable_variables:
        variable.assign_add(tf.ones_like(variable) * 0.125)
    tf.saved_model.save(loaded, str(tmp_path / "trained"))
    graphfreeze.fold(kept, tmp_path / "deploy", state=tmp_path / "trained")
    for name in ("saved_model.pb", "keras_metadata.pb"):
        assert (tmp_path / "deploy" / name).read_bytes() == (saved("image") / name).read_bytes()
    folded = tf_keras.models.load_model(str(tmp_path / "deploy"))
    x = tf.constant(inputs("image"))
    np.testing.assert_array_equal(folded.get_layer("conv").kernel[0], np.full((3, 2, 3), 0.25, np.float32))
    deployed = tf.saved_model.load(str(tmp_path / "deploy"))
    assert deployed(x, training=False).numpy().tobytes() == loaded(x, training=False).numpy().tobytes()
    assert [v.numpy().tolist() for v in folded.variables] == [v.numpy().tolist() for v in deployed.variables]


@pytest.mark.parametrize("form", ["model", "weights"])
def test_fold_takes_what_another_optimizer_trained(saved: Saved, kept: Path, tmp_path: Path, form: str) -> None:
    """The optimizer's variables and the metrics that were saved are no part of what the functions compute."""
    model = tf_keras.models.load_model(str(kept / "saved_model"))
    model.compile(tf_keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x = inputs("image")
    model.fit(x, np.zeros((5, 2), np.float32), epochs=2, verbose=0)
    save = model.save if form == "model" else model.save_weights
    save(str(tmp_path / "trained"))
    graphfreeze.fold(kept, tmp_path / "deploy", state=tmp_path / "trained")
    folded, before = (tf_keras.models.load_model(str(path)) for path in (tmp_path / "deploy", saved("image")))
    assert folded.predict(x, verbose=0).tobytes() == model.predict(x, verbose=0).tobytes()
    assert folded.predict(x, verbose=0).tobytes() != before.predict(x, verbose=0).tobytes()
    state = [[v.numpy().tolist() for v in loaded.optimizer.variables] for loaded in (folded, before)]
    assert state[0] == state[1]


def test_a_kept_model_is_rewritten_again(saved: Saved, kept: Path, tmp_path: Path) -> None:
    freeze(kept / "saved_model", tmp_path / "out", "out/bias", onnx=False, keras2="keep", checks="none")
    model = tf_keras.models.load_model(str(tmp_path / "out" / "saved_model"))
    tagged = {layer.name for layer in model.layers if type(layer).__name__.startswith("GraphFrozen>")}
    assert tagged == {"conv", "out"}
    proof = graphfreeze.verify(kept / "saved_model", tmp_path / "out")["checks"][0]["evidence"]
    assert proof["keras_2"] == {"mode": "keep", "noted": 10, "retagged": 2}


def test_verify_wants_the_notes_that_fold_restores(saved: Saved, kept: Path) -> None:
    file = kept / "plan" / "original_keras_metadata.pb"
    whole = file.read_bytes()
    assert graphfreeze.verify(saved("image"), kept)["passed"]
    file.write_bytes(whole[:-1])
    with pytest.raises(VerificationError, match=r"keras_metadata\.pb differs from"):
        graphfreeze.verify(saved("image"), kept)
    file.write_bytes(whole)


def test_what_cannot_be_kept_fails_at_rewrite_time(saved: Saved, tmp_path: Path) -> None:
    """A recurrent layer that takes a mask from a revived embedding, which makes none."""
    with pytest.raises(UnsupportedError, match=r"--keras2 keep cannot keep this freeze: .*gru"):
        freeze(saved("masked"), tmp_path / "out", "**/kernel[0]", "**/embeddings[0]", onnx=False, keras2="keep")
    assert not (tmp_path / "out").exists()


def test_keeping_needs_to_be_tried(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--checks static runs nothing of the model"):
        freeze(saved("image"), tmp_path / "out", "out/bias", onnx=False, keras2="keep", checks="static")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "tf_keras" else real(name, *a))
    with pytest.raises(UsageError, match=r"pip install 'graphfreeze\[keras2\]'"):
        freeze(saved("image"), tmp_path / "out", "out/bias", onnx=False, keras2="keep")
