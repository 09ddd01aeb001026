"""Outputs whose size follows the batch along more than one axis: the similarity of each image and each text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.errors import UnsupportedError


class Contrastive(tf.Module):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.image = tf.Variable(rng.normal(size=(4, 3)), dtype=tf.float32, name="image/kernel")
        self.text = tf.Variable(rng.normal(size=(5, 3)), dtype=tf.float32, name="text/kernel")

    @tf.function(input_signature=[tf.TensorSpec((None, 4), name="images"), tf.TensorSpec((None, 5), name="texts")])
    def serve(self, images: tf.Tensor, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        one, other = tf.math.l2_normalize(images @ self.image, 1), tf.math.l2_normalize(texts @ self.text, 1)
        return {"logits": tf.matmul(one, other, transpose_b=True)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("contrastive") / "model"
    module = Contrastive()
    tf.saved_model.save(module, str(path), signatures={"serve": module.serve})
    return path


def test_whole_numbers_say_which_of_the_batch(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    batch = {"images": rng.normal(size=(6, 4)), "texts": rng.normal(size=(6, 5)), "y": np.arange(6)}
    data = {name: array.astype("int64" if name == "y" else "float32") for name, array in batch.items()}
    np.savez(tmp_path / "data.npz", images=data["images"], texts=data["texts"], y=data["y"])
    loss = "sparse_categorical_crossentropy:from_logits=true"
    selection = graphfreeze.Selection("freeze", "text/kernel[0]")
    report = graphfreeze.rewrite(
        model, tmp_path / "out", [selection], loss=loss, checks="full", data=tmp_path / "data.npz"
    )
    assert all(check["passed"] for check in report["checks"])
    trainer = graphfreeze.Trainer(tmp_path / "out")
    variables = [tf.Variable(v) for v in (Contrastive().image, Contrastive().text)]
    one, other = (
        tf.math.l2_normalize(data[name] @ variable, 1)
        for name, variable in zip(("images", "texts"), variables, strict=True)
    )
    logits = tf.matmul(one, other, transpose_b=True)
    expected = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(data["y"], logits))
    assert trainer.step(data) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["loss", "learning_rate", "y"])
def test_inputs_named_as_something_of_the_step_are_refused(name: str, tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(tf.ones((4, 2)), name="kernel")
    module.serve = tf.function(lambda x: x @ module.kernel, input_signature=[tf.TensorSpec((None, 4), name=name)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    selection = graphfreeze.Selection("freeze", "kernel[0]")
    with pytest.raises(UnsupportedError, match=f"an input of 'serve' is named '{name}', as the step calls .*: rename"):
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [selection], loss="mse")
    assert not (tmp_path / "out").exists()


def test_targets_of_unknown_size_are_refused_with_the_way_out(model: Path, tmp_path: Path) -> None:
    selection = graphfreeze.Selection("freeze", "text/kernel[0]")
    with pytest.raises(UnsupportedError, match=r"\(None, None\).*choose .* sparse_categorical_crossentropy"):
        graphfreeze.rewrite(model, tmp_path / "out", [selection], loss="mean_squared_error")
