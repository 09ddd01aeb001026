"""Our `forward.onnx` as tools read models that they are to differentiate: weights inside, the batch size fixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

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
    _expand_normalizations(model)
    trainable = [name for name in weights if state[name].role == "parameter" and state[name].trainable]
    onnx.save(model, directory / "forward.onnx")
    (directory / "trainable.json").write_text(json.dumps(trainable), encoding="utf-8")


def _expand_normalizations(model: onnx.ModelProto) -> None:
    """Write each BatchNormalization, which only scales and shifts planes here, as a product and a sum.

    A tool that differentiates takes every BatchNormalization for one whose statistics are those of the batch.
    """
    graph = model.graph
    found = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in (*found.value_info, *found.output)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        image, *vectors = node.input[:3]
        (name,) = node.output
        names = [f"{name}/{part}" for part in ("scale", "offset", "shape")]
        shape = np.array([-1] + [1] * (ranks[name] - 2), np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, names[2]))
        pairs = zip(vectors, names, strict=False)
        nodes += [helper.make_node("Reshape", [vector, names[2]], [part], part) for vector, part in pairs]
        nodes.append(helper.make_node("Mul", [image, names[0]], [f"{name}/product"], f"{name}/product"))
        nodes.append(helper.make_node("Add", [f"{name}/product", names[1]], [name], name))
    del graph.node[:]
    graph.node.extend(nodes)
