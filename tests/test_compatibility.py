"""Models that others made: each is rewritten and verified, or refused. GRAPHFREEZE_CORPUS names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import tensorflow as tf

from tools.compatibility import NOTHING, REFUSED, REWRITTEN, document, examine, find_models

CORPUS = os.environ.get("GRAPHFREEZE_CORPUS")
MODELS = find_models(Path(CORPUS)) if CORPUS else []


@pytest.mark.skipif(not CORPUS, reason="GRAPHFREEZE_CORPUS is not set")
@pytest.mark.parametrize("model", MODELS, ids=lambda model: str(model.name))
def test_models_of_the_corpus(model: Path) -> None:
    row = examine(model, model.name)
    assert row.outcome in (REWRITTEN, REFUSED, NOTHING), f"{row.error}: {row.reason}"
    # Models that TensorFlow reads are not corrupt, whatever else there is to say about them.
    assert row.error != "ModelReadError", row.reason


def test_a_model_of_each_kind(tmp_path: Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="v")
    module.f = tf.function(lambda x: tf.matmul(x, module.v), input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "a" / "good"))
    bare = tf.Module()
    bare.f = tf.function(lambda x: x + 1.0, input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    tf.saved_model.save(bare, str(tmp_path / "b"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "saved_model.pb").write_bytes(b"nonsense")
    rows = [examine(model, model.relative_to(tmp_path).as_posix()) for model in find_models(tmp_path)]
    assert [(row.model, row.outcome) for row in rows] == [("a/good", REWRITTEN), ("b", NOTHING), ("c", REFUSED)]
    assert rows[0].reason == "1 reads of 1 variables masked; compared with the original at f, serving_default"
    assert "3 models: 1 rewritten and verified, 1 refused, 1 nothing to freeze." in document(rows)
