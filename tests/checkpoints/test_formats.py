"""Checkpoints of several shards, with parts of tensors, and with a compressed index: every command takes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.passes import storage
from graphfreeze.prover.snappy import uncompressed
from graphfreeze.savedmodel.checkpoint_index import read_index
from graphfreeze.savedmodel.snappy import decompress

from .formats import FORMATS, make_big_endian, snappy

X = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
SELECTIONS = [graphfreeze.Selection("freeze", text) for text in ("net/hidden/kernel[:, 1:]", "net/out/** := 2")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as Keras exports it: one shard, one part of each tensor, no compression."""
    path = tmp_path_factory.mktemp("plain") / "model"
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, name="hidden"), keras.layers.BatchNormalization(name="bn")]
    model = keras.Sequential([keras.Input((5,), name="x"), *layers, keras.layers.Dense(2, name="out")], name="net")
    model.export(path, verbose=False)
    return path


@pytest.fixture(params=FORMATS)
def model(request: pytest.FixtureRequest, plain: Path, tmp_path: Path) -> Path:
    """The same model in another form. TensorFlow reads it: what it computes is the same."""
    shutil.copytree(plain, tmp_path / "model")
    # It would tell that the checkpoint is another one.
    (tmp_path / "model" / "fingerprint.pb").unlink()
    FORMATS[request.param](tmp_path / "model" / "variables" / "variables")
    assert serve(tmp_path / "model").tobytes() == serve(plain).tobytes()
    return tmp_path / "model"


def serve(directory: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    loaded = tf.saved_model.load(str(directory))
    outputs: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = loaded.serve(X).numpy()
    return outputs


@pytest.mark.parametrize("stored", [False, True])
def test_the_same_as_in_plain_form(
    plain: Path, model: Path, tmp_path: Path, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stored:
        monkeypatch.setattr(storage.Storage, "__init__", lambda self: self.__dict__.update(total=0, each=0))
    assert graphfreeze.inspect(model)["variables"] == graphfreeze.inspect(plain)["variables"]
    graphfreeze.rewrite(model, tmp_path / "out", SELECTIONS, onnx=False, form="select")
    evidence = graphfreeze.verify(model, tmp_path / "out")["checks"][0]["evidence"]
    assert evidence.get("stored_constants", 0) == (6 if stored else 0)
    graphfreeze.rewrite(plain, tmp_path / "plain", SELECTIONS, onnx=False, form="select", checks="static")
    assert serve(tmp_path / "out" / "saved_model").tobytes() == serve(tmp_path / "plain" / "saved_model").tobytes()
    if not stored:
        for file in sorted((model / "variables").iterdir()):
            assert (tmp_path / "out" / "saved_model" / "variables" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_fold_takes_them_and_their_states(model: Path, tmp_path: Path, form: str) -> None:
    graphfreeze.rewrite(model, tmp_path / "out", SELECTIONS, onnx=False, checks="static")
    trained = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    for variable in trained.variables:
        variable.assign(tf.abs(variable) * 0.5 + 0.25)
    state = Path(tf.train.Checkpoint(trained).write(str(tmp_path / "state")))
    FORMATS[form](state)
    graphfreeze.fold(tmp_path / "out", tmp_path / "deploy", state=state)
    assert (tmp_path / "deploy" / "saved_model.pb").read_bytes() == (model / "saved_model.pb").read_bytes()
    assert serve(tmp_path / "deploy").tobytes() == trained.serve(X).numpy().tobytes()


def test_the_other_byte_order_is_refused(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "model")
    make_big_endian(tmp_path / "model" / "variables" / "variables")
    with pytest.raises(graphfreeze.UnsupportedError, match="big-endian"):
        graphfreeze.inspect(tmp_path / "model")
    with pytest.raises(graphfreeze.UnsupportedError, match="big-endian"):
        graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", SELECTIONS, onnx=False, checks="static")


def test_both_decompressors_undo_compression() -> None:
    rng = np.random.default_rng(0)
    texts = [b"", b"a", b"abcd" * 5000, rng.bytes(5000), bytes(rng.integers(0, 2, 20000).astype(np.uint8))]
    far = rng.bytes(5000)
    for text in [*texts, far + rng.bytes(4) + far[:100]]:
        small = snappy(text)
        assert decompress(small) == uncompressed(small) == text
        for damaged in (small[:-1], small + b"\x01\xff", b"\xff" * 6):
            with pytest.raises((ValueError, IndexError)):
                uncompressed(damaged)
            with pytest.raises(ValueError, match="compressed block"):
                decompress(damaged)
    # A literal whose length takes bytes of its own.
    assert decompress(b"\x50\xf0\x4f" + b"x" * 80) == uncompressed(b"\x50\xf0\x4f" + b"x" * 80) == b"x" * 80


def test_the_index_is_read_by_its_parts(model: Path) -> None:
    """What TensorFlow's reader lists is what ours does, but for the keys of parts."""
    prefix = str(model / "variables" / "variables")
    entries = read_index(prefix).entries
    keys = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    # Keys of parts begin with a zero byte.
    assert {key.decode() for key in entries if not key.startswith(b"\0")} == set(keys)
