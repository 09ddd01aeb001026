"""`fold` writes a plain inference ONNX: forward.onnx, with the state inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.artifact import read_artifact
from graphfreeze.artifact.inference import write_inference_model

from .conftest import Array, Rewritten


def run(path: Path, feeds: dict[str, Array]) -> list[Array]:
    """The outputs without any optimisation."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    return outputs


def make_state(rewritten: Rewritten, directory: Path) -> Path:
    """A state file after a few steps."""
    rng = np.random.default_rng(1)
    np.savez(directory / "data.npz", x=rewritten.x, y=rng.normal(size=(7, 2)).astype("f4"))
    graphfreeze.train(
        rewritten.out, directory / "data.npz", epochs=2, batch_size=3, save=directory / "trained.safetensors"
    )
    return directory / "trained.safetensors"


def test_equals_the_forward_graph(rewritten: Rewritten, tmp_path: Path) -> None:
    state = make_state(rewritten, tmp_path)
    report = graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=state)
    assert report["onnx"] == str(tmp_path / "deploy" / "model.onnx")

    from safetensors.numpy import load_file

    feeds = {"x": rewritten.x, **load_file(state)}
    expected = run(rewritten.out / "training" / "forward.onnx", feeds)
    found = run(tmp_path / "deploy" / "model.onnx", {"x": rewritten.x})
    assert [o.tobytes() for o in found] == [o.tobytes() for o in expected]
    # It is not the untrained model, and it needs nothing but the batch.
    untrained = {"x": rewritten.x, **load_file(rewritten.out / "training" / "state.safetensors")}
    assert run(rewritten.out / "training" / "forward.onnx", untrained)[0].tobytes() != found[0].tobytes()
    model = onnx.load(tmp_path / "deploy" / "model.onnx")
    assert [value.name for value in model.graph.input] == ["x"]
    onnx.checker.check_model(model, full_check=True)
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    np.testing.assert_allclose(found[0], folded.serve(rewritten.x), rtol=1e-5, atol=1e-6)


def test_a_checkpoint_serves_too(rewritten: Rewritten, trained: Any, tmp_path: Path) -> None:
    prefix = tf.train.Checkpoint(trained).write(str(tmp_path / "ckpt"))
    graphfreeze.fold(rewritten.out, tmp_path / "deploy", state=prefix)
    found = run(tmp_path / "deploy" / "model.onnx", {"x": rewritten.x})[0]
    np.testing.assert_allclose(found, trained.serve(rewritten.x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_large_models_keep_their_constants_beside(rewritten: Rewritten, tmp_path: Path, limit: int) -> None:
    artifact = read_artifact(rewritten.out)
    files = write_inference_model(artifact, artifact.state, tmp_path, one_file_limit=limit)
    assert files == (["model.onnx"] if limit else ["model.onnx", "model.onnx.data"])
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    feeds = {"x": rewritten.x, **dict(artifact.state)}
    expected = run(rewritten.out / "training" / "forward.onnx", feeds)
    assert run(tmp_path / "model.onnx", feeds)[0].tobytes() == expected[0].tobytes()
