"""Every input that is no whole SavedModel gets one line that says what it is and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from graphfreeze.errors import ModelReadError, UnsupportedError, UsageError
from graphfreeze.savedmodel.model import SavedModel


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "model"
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0], name="v")
    module.f = tf.function(lambda x: x * module.v, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(path))
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def message_of(path: Path, error: type[Exception] = ModelReadError) -> str:
    with pytest.raises(error) as caught:
        SavedModel.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [("m.keras", "a Keras 3 file"), ("m.h5", "a Keras HDF5 file")])
def test_keras_files(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    message = message_of(tmp_path / name)
    assert f"is {kind}, not a SavedModel" in message
    assert f"graphfreeze export {tmp_path / name}" in message


def test_other_files(copy: Path) -> None:
    assert "is a file" in message_of(copy / "saved_model.pb")


def test_missing_and_empty_directories(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "is empty" in message_of(tmp_path / "empty")


def test_directories_of_something_else(copy: Path) -> None:
    assert "holds no saved_model.pb, only variables.data" in message_of(copy / "variables")
    message = message_of(copy.parent)
    assert f"{copy} is. Give that path." in message
    (copy / "saved_model.pb").unlink()
    (copy / "saved_model.pb").mkdir()
    assert "saved_model.pb is no file" in message_of(copy)


def test_other_formats(tmp_path: Path) -> None:
    (tmp_path / "saved_model.cpb").touch()
    assert "Save" in message_of(tmp_path, UnsupportedError)


def test_truncated_text(copy: Path) -> None:
    text = text_format.MessageToString(SavedModel.load(copy).proto)
    (copy / "saved_model.pb").unlink()
    for content in (b"", text[: len(text) // 2].encode(), b"\xff\xfe", b"graphs { }", b"meta_graphs {" * 5000):
        (copy / "saved_model.pbtxt").write_bytes(content)
        assert "Export the model again" in message_of(copy)


def test_truncated_graph(copy: Path) -> None:
    content = (copy / "saved_model.pb").read_bytes()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        (copy / "saved_model.pb").write_bytes(content[:size])
        assert "Export the model again" in message_of(copy)


def break_child(proto: Any) -> None:
    proto.meta_graphs[0].object_graph_def.nodes[0].children[0].node_id = 99


def break_capture(proto: Any) -> None:
    functions = proto.meta_graphs[0].object_graph_def.concrete_functions
    functions[min(functions)].bound_inputs[0] = 99


def break_library(proto: Any) -> None:
    del proto.meta_graphs[0].graph_def.library.function[:]


def break_return(proto: Any) -> None:
    for function in proto.meta_graphs[0].graph_def.library.function:
        function.ret.clear()


def break_call(proto: Any) -> None:
    for node in proto.meta_graphs[0].graph_def.node:
        if node.op == "StatefulPartitionedCall":
            del node.input[:]


@pytest.mark.parametrize("damage", [break_child, break_capture, break_library, break_return, break_call])
def test_broken_references(copy: Path, damage: Callable[[Any], None]) -> None:
    proto = SavedModel.load(copy).proto
    damage(proto)
    (copy / "saved_model.pb").write_bytes(proto.SerializeToString())
    assert "is corrupt: " in message_of(copy)


def test_missing_variables(copy: Path) -> None:
    (copy / "variables" / "variables.data-00000-of-00001").rename(copy / "variables" / "variables.data-00001-of-00002")
    assert "lacks variables.data-00000-of-00002" in message_of(copy)
    (copy / "variables" / "variables.data-00001-of-00002").unlink()
    assert "lacks variables.data-00000-of-00001" in message_of(copy)
    (copy / "variables" / "variables.index").unlink()
    assert "variables.index is missing" in message_of(copy)
    shutil.rmtree(copy / "variables")
    assert "variables.index is missing" in message_of(copy)


@pytest.mark.parametrize("name", ["variables.index", "variables.data-00000-of-00001"])
def test_truncated_variables(copy: Path, name: str) -> None:
    file = copy / "variables" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
    model = SavedModel.load(copy)
    with pytest.raises(ModelReadError, match=r"cannot (be read|yield)") as caught:
        model.read(model.variables[0])
    assert "\n" not in str(caught.value)


def test_models_without_variables_need_no_checkpoint(tmp_path: Path) -> None:
    module = tf.Module()
    module.f = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    shutil.rmtree(tmp_path / "model" / "variables")
    model = SavedModel.load(tmp_path / "model")
    assert model.variables == ()
    assert [endpoint.label for endpoint in model.endpoints] == ["function f", "signature serving_default"]


def test_tensorflow_1_models(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        builder = tf.compat.v1.saved_model.Builder(str(tmp_path / "model"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    model = SavedModel.load(tmp_path / "model")
    assert not model.has_objects
    assert model.variables == ()


def test_several_graphs(copy: Path) -> None:
    proto = SavedModel.load(copy).proto
    proto.meta_graphs.add().CopyFrom(proto.meta_graphs[0])
    (copy / "saved_model.pb").write_bytes(proto.SerializeToString())
    assert "holds 2 graphs" in message_of(copy, UsageError)
    with pytest.raises(UnsupportedError, match="one of them has an object graph"):
        SavedModel.load(copy, ["serve"])


def test_bytes_that_are_no_bools(tmp_path: Path) -> None:
    module = tf.Module()
    module.on = tf.Variable(np.array([0, 1, 2], np.uint8).view(np.bool_), name="on")
    module.f = tf.function(lambda x: tf.where(module.on, x, -x), input_signature=[tf.TensorSpec([3], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    model = SavedModel.load(tmp_path / "model")
    with pytest.raises(ModelReadError, match=r"the value 'on/.* holds the byte 2, expected bools, each a byte"):
        model.read(model.variables[0])
