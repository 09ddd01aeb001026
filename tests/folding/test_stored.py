"""A rewrite whose masks are in the checkpoint: proven, folded without them, and not rewritten again."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.passes import storage
from graphfreeze.savedmodel.checkpoint import Checkpoint

from .conftest import Rewritten

SELECTIONS = [graphfreeze.Selection("freeze", text) for text in ("net/hidden/kernel[:, 1:]", "net/out/kernel[0] := 2")]


@pytest.fixture
def out(rewritten: Rewritten, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(storage.Storage, "__init__", lambda self: self.__dict__.update(total=0, each=0))
    graphfreeze.rewrite(rewritten.original, tmp_path / "out", SELECTIONS, onnx=False, form="select")
    return tmp_path / "out"


def test_it_is_proven_and_folds_back(rewritten: Rewritten, out: Path, tmp_path: Path) -> None:
    evidence = graphfreeze.verify(rewritten.original, out)["checks"][0]["evidence"]
    assert evidence["stored_constants"] == 4
    loaded = tf.saved_model.load(str(out / "saved_model"))
    for variable in loaded.trainable_variables:
        variable.assign(variable * 0.5 + 0.25)
    expected = loaded.serve(rewritten.x).numpy()
    state = tf.train.Checkpoint(loaded).write(str(tmp_path / "ckpt"))
    graphfreeze.fold(out, tmp_path / "deploy", state=state)
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    assert folded.serve(rewritten.x).numpy().tobytes() == expected.tobytes()
    # Nothing of masks is left in the checkpoint.
    before, after = Checkpoint(rewritten.original), Checkpoint(tmp_path / "deploy")
    assert after.shapes == before.shapes
    assert after.objects == before.objects


def test_it_is_not_rewritten_again(out: Path, tmp_path: Path) -> None:
    with pytest.raises(graphfreeze.UnsupportedError, match="keeps large masks in the checkpoint"):
        graphfreeze.rewrite(out / "saved_model", tmp_path / "again", SELECTIONS, onnx=False)
