"""`fold` takes a trained state in every form that TensorFlow and the artifact save it in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze

from .conftest import Array, Rewritten


def serve(directory: Path, x: Array) -> Array:
    """What a loaded SavedModel computes."""
    loaded = tf.saved_model.load(str(directory))
    outputs: Array = loaded.serve(x).numpy()
    return outputs


def run_session(directory: Path, x: Array) -> Array:
    """What a session of a SavedModel computes."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(directory))
        signature = meta_graph.signature_def["serving_default"]
        (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
        outputs: Array = session.run(fetch.name, {feed.name: x})
    return outputs


def save_model(loaded: Any, directory: Path) -> Path:
    tf.saved_model.save(loaded, str(directory / "saved"))
    return directory / "saved"


def save_checkpoint(loaded: Any, directory: Path) -> Path:
    return Path(tf.train.Checkpoint(loaded).write(str(directory / "ckpt")))


def save_index(loaded: Any, directory: Path) -> Path:
    return Path(tf.train.Checkpoint(loaded).write(str(directory / "ckpt.first")) + ".index")


def save_nested(loaded: Any, directory: Path) -> Path:
    holder = tf.Module()
    holder.step, holder.inner = tf.Variable(3), tf.Module()
    holder.inner.net = loaded
    return Path(tf.train.Checkpoint(training=holder).write(str(directory / "ckpt")))


def save_with_manager(loaded: Any, directory: Path) -> Path:
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=loaded), str(directory), max_to_keep=2)
    kept = [v.numpy() for v in loaded.variables]
    for variable in loaded.variables:
        variable.assign(variable * 0)
    manager.save()
    for variable, value in zip(loaded.variables, kept, strict=True):
        variable.assign(value)
    manager.save()
    return directory


SAVERS: dict[str, Callable[[Any, Path], Path]] = {
    "SavedModel": save_model,
    "checkpoint": save_checkpoint,
    "index of a checkpoint": save_index,
    "checkpoint of a holder": save_nested,
    "directory of checkpoints": save_with_manager,
}


@pytest.mark.parametrize("form", SAVERS)
def test_folded_equals_trained(rewritten: Rewritten, trained: Any, tmp_path: Path, form: str) -> None:
    expected = trained.serve(rewritten.x).numpy()
    (tmp_path / "state").mkdir()
    state = SAVERS[form](trained, tmp_path / "state")
    report = graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=state)

    original = (rewritten.original / "saved_model.pb").read_bytes()
    assert (tmp_path / "deploy" / "saved_model.pb").read_bytes() == original
    assert serve(tmp_path / "deploy", rewritten.x).tobytes() == expected.tobytes()
    assert run_session(tmp_path / "deploy", rewritten.x).tobytes() == expected.tobytes()
    # Training did move it, and the frozen elements' storage as well.
    assert not np.array_equal(serve(rewritten.saved_model, rewritten.x), expected)
    assert report["trained_variables"] == 10


def test_what_a_session_trained_is_folded(rewritten: Rewritten, tmp_path: Path) -> None:
    """A session restores the second copy of each variable, and trains that."""
    (tmp_path / "state").mkdir()
    prefix = str(tmp_path / "state" / "ckpt")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(rewritten.saved_model))
        signature = meta_graph.signature_def["serving_default"]
        (feed,), (fetch,) = signature.inputs.values(), signature.outputs.values()
        for variable in graph.get_collection("variables"):
            session.run(variable.assign(tf.abs(variable) * 0.5 + 0.25))
        expected = session.run(fetch.name, {feed.name: rewritten.x})
        saver = meta_graph.saver_def
        session.run(saver.save_tensor_name, {saver.filename_tensor_name: prefix})
    graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=prefix)
    assert run_session(tmp_path / "deploy", rewritten.x).tobytes() == expected.tobytes()
    assert serve(tmp_path / "deploy", rewritten.x).tobytes() == expected.tobytes()


def test_states_of_other_models_are_refused(rewritten: Rewritten, trained: Any, tmp_path: Path) -> None:
    def attempt(state: Path) -> None:
        graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=state)

    other = tf.Module()
    other.variables_ = [tf.Variable([1.0])]
    with pytest.raises(graphfreeze.DataError, match="no checkpoint of this model: of 10 variables it lacks 10"):
        attempt(Path(tf.train.Checkpoint(other).write(str(tmp_path / "other"))))
    some = tf.train.Checkpoint(variables=list(trained.variables[:4])).write(str(tmp_path / "some"))
    with pytest.raises(graphfreeze.DataError, match="of 10 variables it lacks 6"):
        attempt(Path(some))
    twice = tf.train.Checkpoint(a=trained, b=tf.saved_model.load(str(rewritten.saved_model)))
    with pytest.raises(graphfreeze.DataError, match="2 objects with all variables"):
        attempt(Path(twice.write(str(tmp_path / "twice"))))
    with pytest.raises(graphfreeze.DataError, match="expected a trained state at"):
        attempt(tmp_path / "missing")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("w", [2], use_resource=True)
        session.run(variable.initializer)
        named = tf.compat.v1.train.Saver().save(session, str(tmp_path / "named"))
    with pytest.raises(graphfreeze.DataError, match="name-based checkpoint"):
        attempt(Path(named))
    assert not (tmp_path / "deploy").exists()


def test_a_corrupt_restore_function_is_refused(rewritten: Rewritten, trained: Any, tmp_path: Path) -> None:
    """What a session restores is asked for by fold alone, of the graph that the rewrite kept."""
    state = tf.train.Checkpoint(trained).write(str(tmp_path / "ckpt"))
    shutil.copytree(rewritten.out, tmp_path / "out")
    kept = tmp_path / "out" / "plan" / "original_saved_model.pb"
    proto = saved_model_pb2.SavedModel.FromString(kept.read_bytes())
    for function in proto.meta_graphs[0].graph_def.library.function:
        nodes = {node.name: node for node in function.node_def}
        for node in [node for node in nodes.values() if node.op == "RestoreV2"]:
            keys = nodes[node.input[1].split(":")[0]].attr["value"].tensor
            del keys.string_val[1:]
            keys.tensor_shape.dim[0].size = 1
    kept.write_bytes(proto.SerializeToString())
    with pytest.raises(graphfreeze.ModelReadError, match="The function that restores variables is corrupt"):
        graphfreeze.fold(tmp_path / "out", tmp_path / "deploy", state=state)
    assert not (tmp_path / "deploy").exists()


def test_a_manifest_of_another_model_is_refused(rewritten: Rewritten, tmp_path: Path) -> None:
    out = Path(shutil.copytree(rewritten.out, tmp_path / "out"))
    shutil.copyfile(out / "training" / "state.safetensors", out / "training" / "trained.safetensors")
    path = out / "training" / "manifest.json"
    document = json.loads(path.read_text())
    document["state"][0]["object_path"] = "elsewhere"
    path.write_text(json.dumps(document))
    with pytest.raises(graphfreeze.ArtifactReadError, match="no variable at the object path 'elsewhere' of"):
        graphfreeze.fold(out, tmp_path / "deploy")
    assert not (tmp_path / "deploy").exists()
