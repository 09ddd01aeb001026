"""Our `forward.onnx` as tools read models that they are to differentiate: weights inside, the batch size fixed."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import numpy_helper

from graphfreeze.artifact.reader import read_artifact

__all__ = ["write_forward_model"]


def write_forward_model(out: Path, directory: Path, batch_size: int) -> None:
    """Write `forward.onnx`, and the names of its trainable initializers to `trainable.json`.

    Args:
        out: The OUT of a rewrite.
        directory: Where to.
        batch_size: What the first axis of each input becomes.
    """
    artifact = read_artifact(out)
    state = {entry.name: entry for entry in artifact.manifest.state}
    model = onnx.load(artifact.graph_path("forward"))
    graph = model.graph
    weights = [value.name for value in graph.input if value.name in state]
    inputs = [value for value in graph.input if value.name not in state]
    outputs = [value for value in graph.output if value.name.startswith("output/")]
    for value in inputs + outputs:
        value.type.tensor_type.shape.dim[0].dim_value = batch_size
    for field, kept in ((graph.input, inputs), (graph.output, outputs[:1])):
        del field[:]
        field.extend(kept)
    # What was derived with an open batch size would stay open.
    del graph.value_info[:]
    graph.initializer.extend(numpy_helper.from_array(artifact.state[name], name) for name in weights)
    trainable = [name for name in weights if state[name].role == "parameter" and state[name].trainable]
    onnx.save(model, directory / "forward.onnx")
    (directory / "trainable.json").write_text(json.dumps(trainable), encoding="utf-8")
