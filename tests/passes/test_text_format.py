"""SavedModels whose graph is a text, `saved_model.pbtxt`."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze import Selection
from tests.passes.tf1_models import Session, save_model

FREEZE = [Selection("freeze", "**[0]")]


def as_text(model: Path) -> bytes:
    """Write the graph as a text instead; returns the bytes that it was."""
    content = (model / "saved_model.pb").read_bytes()
    (model / "saved_model.pb").unlink()
    text = text_format.MessageToString(saved_model_pb2.SavedModel.FromString(content))
    (model / "saved_model.pbtxt").write_text(text)
    return content


def save_module(path: Path) -> Path:
    module = tf.Module()
    module.v = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="v")
    module.f = tf.function(lambda x: tf.matmul(x, module.v), input_signature=[tf.TensorSpec([None, 2], tf.float32)])
    tf.saved_model.save(module, str(path))
    return path


@pytest.mark.parametrize("make", [save_module, lambda path: save_model(path, resource=False)])
def test_a_text_is_rewritten_like_what_it_stands_for(tmp_path: Path, make: object) -> None:
    assert callable(make)
    for name in ("text", "binary"):
        make(tmp_path / name)
    content = as_text(tmp_path / "text")
    graph = saved_model_pb2.SavedModel.FromString(content)
    (tmp_path / "binary" / "saved_model.pb").write_bytes(content)
    for name in ("text", "binary"):
        graphfreeze.rewrite(tmp_path / name, tmp_path / f"out_{name}", FREEZE, onnx=False)
        graphfreeze.verify(tmp_path / name, tmp_path / f"out_{name}")
    first, second = (tmp_path / f"out_{name}" / "saved_model" for name in ("text", "binary"))
    assert not (first / "saved_model.pbtxt").exists()
    assert (first / "saved_model.pb").read_bytes() == (second / "saved_model.pb").read_bytes()
    graphfreeze.fold(tmp_path / "out_text", tmp_path / "folded", state=first)
    folded = saved_model_pb2.SavedModel.FromString((tmp_path / "folded" / "saved_model.pb").read_bytes())
    assert folded.SerializeToString(deterministic=True) == graph.SerializeToString(deterministic=True)
    (tmp_path / "text" / "saved_model.pbtxt").write_text("meta_graphs { graph_def { node { name: 'x' } } }")
    with pytest.raises(graphfreeze.VerificationError):
        graphfreeze.verify(tmp_path / "text", tmp_path / "out_text")


def test_a_session_loads_the_result(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", resource=True)
    with Session(model) as session:
        expected = session.run("y:0")
    as_text(model)
    graphfreeze.rewrite(model, tmp_path / "out", FREEZE, onnx=False, checks="static")
    with Session(tmp_path / "out" / "saved_model") as session:
        assert session.run("y:0").tobytes() == expected.tobytes()
