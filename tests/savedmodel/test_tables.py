"""Assets, files of users' own, and lookup tables survive a rewrite and a fold: byte for byte, and at work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.passes import storage

Array = npt.NDArray[Any]

# Words that are no UTF-8, and a blank one.
VOCABULARY = b"one\n\xff\xfe\n \nthree\n"
WORDS = np.array([b"three", b"\xff\xfe", b" ", b"none of them"])


class Words(tf.Module):
    """An embedding whose rows a table finds; the table reads an asset. Two more tables, and strings."""

    def __init__(self, vocabulary: Path) -> None:
        super().__init__()
        columns = tf.lookup.TextFileIndex
        file = tf.lookup.TextFileInitializer(
            str(vocabulary), tf.string, columns.WHOLE_LINE, tf.int64, columns.LINE_NUMBER
        )
        weights = tf.lookup.KeyValueTensorInitializer(["three", " "], [2.0, 3.0])
        self.rows = tf.lookup.StaticVocabularyTable(file, 1)
        self.weights = tf.lookup.StaticHashTable(weights, 0.5)
        # Its keys and values are in the checkpoint.
        self.seen = tf.lookup.experimental.MutableHashTable(tf.string, tf.float32, 0.25)
        self.seen.insert(["one", "\0three"], [4.0, 5.0])
        self.labels = tf.Variable([b"a\0", b"\0", b""], trainable=False, name="labels")
        self.table = tf.Variable(np.arange(10, dtype=np.float32).reshape(5, 2), name="table")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, words: Any) -> Any:
        factor = self.weights.lookup(words) + self.seen.lookup(tf.strings.join(["\0", words]))
        rows = tf.gather(self.table, self.rows.lookup(words)) * factor[:, None]
        return {"rows": rows, "labels": self.labels[:1]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.float32)])
    def learn(self, words: Any, values: Any) -> None:
        self.seen.insert(words, values)


def save_words(path: Path) -> None:
    (path.parent / "words.bin").write_bytes(VOCABULARY)
    module = Words(path.parent / "words.bin")
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


def save_text(path: Path) -> None:
    keras.utils.set_random_seed(1)
    vectorise = keras.layers.TextVectorization(output_sequence_length=2)
    vectorise.adapt(["one two three", "two three", "three"])
    embedding = keras.layers.Embedding(5, 2, name="table")
    model = keras.Sequential([keras.Input((), dtype="string", name="words"), vectorise, embedding], name="net")
    model.export(path, verbose=False)


MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "words": (save_words, "table[3:] := 7"),
    "text": (save_text, "net/table/embeddings[1:3] := 7"),
}


def call(directory: Path) -> dict[str, Array]:
    """What a loaded model computes."""
    # The original's assets must not be needed.
    loaded = tf.saved_model.load(str(directory))
    outputs = loaded.signatures["serving_default"](words=tf.constant(WORDS))
    return {name: value.numpy() for name, value in outputs.items()}


def call_in_session(directory: Path) -> dict[str, Array]:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory)).signature_def[
            "serving_default"
        ]
        fetches = {name: info.name for name, info in signature.outputs.items()}
        results: dict[str, Array] = session.run(fetches, {signature.inputs["words"].name: WORDS})
    return results


def same(found: dict[str, Array], expected: dict[str, Array]) -> bool:
    return found.keys() == expected.keys() and all(found[k].tolist() == expected[k].tolist() for k in found)


def files(directory: Path) -> dict[str, bytes]:
    """All files but graph, checkpoint and notes."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
        and path.parent.name not in ("variables", "graphfreeze")
        and path.name not in ("saved_model.pb", "fingerprint.pb")
    }


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_they_survive(tmp_path: Path, name: str, stored: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if stored:
        monkeypatch.setattr(storage.Storage, "__init__", lambda self: self.__dict__.update(total=0, each=0))
    save, selector = MODELS[name]
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "model")
    extra = tmp_path / "elsewhere" / "model" / "assets.extra"
    (extra / "deep").mkdir(parents=True)
    (extra / "warmup requests").write_bytes(bytes(range(256)) * 3)
    (extra / "deep" / "ü").write_text("mine")
    (extra / "empty").mkdir()
    expected = call(tmp_path / "elsewhere" / "model")
    mine = files(tmp_path / "elsewhere" / "model")
    assert len(mine) == (3 if name == "words" else 2)
    shutil.move(tmp_path / "elsewhere" / "model", tmp_path / "model")
    shutil.rmtree(tmp_path / "elsewhere")

    selection = graphfreeze.Selection("freeze", selector)
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [selection], onnx=False)
    graphfreeze.verify(tmp_path / "model", tmp_path / "out")
    frozen = call(tmp_path / "out" / "saved_model")
    assert not same(frozen, expected)
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    state = tf.train.Checkpoint(loaded).write(str(tmp_path / "state"))
    graphfreeze.fold(tmp_path / "out", tmp_path / "deploy", state=state)
    shutil.move(tmp_path / "model", tmp_path / "gone")
    for directory in (tmp_path / "out" / "saved_model", tmp_path / "deploy"):
        assert files(directory) == mine
        assert (directory / "assets.extra" / "empty").is_dir()
        assert same(call(directory), frozen)
        assert same(call_in_session(directory), frozen)
    if name == "words":
        rows = np.arange(10, dtype=np.float32).reshape(5, 2)
        rows[3:] = 7
        # "three", two bytes, the blank, and one that no row is for.
        factors = [2.0 + 5.0, 0.75, 3.25, 0.75]
        assert frozen["rows"].tolist() == (rows[[3, 1, 2, 4]] * np.array(factors, np.float32)[:, None]).tolist()
        assert frozen["labels"].tolist() == [b"a\0"]


def test_what_a_table_has_learned_is_folded(tmp_path: Path) -> None:
    save_words(tmp_path / "model")
    graphfreeze.rewrite(tmp_path / "model", tmp_path / "out", [graphfreeze.Selection("freeze", "table[0]")], onnx=False)
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    # The table grows: its keys and values have other shapes than before.
    loaded.learn(tf.constant(["\0three", "\0 ", "more"]), tf.constant([7.0, 8.0, 9.0]))
    loaded.labels.assign([b"\0b", b"", b"\0"])
    expected = loaded.serve(tf.constant(WORDS))
    for name, state in {
        "checkpoint": tf.train.Checkpoint(loaded).write(str(tmp_path / "state")),
        "SavedModel": save_again(loaded, tmp_path / "again"),
    }.items():
        graphfreeze.fold(tmp_path / "out", tmp_path / name, state=state)
        found = call(tmp_path / name)
        assert same(found, {key: value.numpy() for key, value in expected.items()})
        assert not same(found, call(tmp_path / "model"))


def save_again(loaded: Any, path: Path) -> Path:
    tf.saved_model.save(loaded, str(path))
    return path
