"""ONNX models, state and reference to the files of an artifact."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from graphfreeze.artifact.consistency import check_graphs, check_reference, check_state
from graphfreeze.artifact.constants import CONSTANTS_FILE, externalised
from graphfreeze.artifact.manifest import GRAPH_NAMES, Manifest
from graphfreeze.artifact.manifest_json import to_json
from graphfreeze.artifact.tensors import Pending, write_tensors
from graphfreeze.errors import OutputError

__all__ = ["MANIFEST_FILE", "REFERENCE_FILE", "STATE_FILE", "sha256_of_file", "write_artifact"]

MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.safetensors"
REFERENCE_FILE = "reference.safetensors"


def write_artifact(
    directory: str | Path,
    manifest: Manifest,
    graphs: Mapping[str, ir.Model | onnx.ModelProto],
    state: Mapping[str, npt.NDArray[Any] | Pending],
    reference: Mapping[str, npt.NDArray[Any]],
) -> Manifest:
    """Write the files of an artifact into a directory, which is made where it is missing.

    The same arguments give the same bytes. The arguments are not changed.

    Args:
        directory: Where to write (`OUT/training`).
        manifest: All of the manifest but `files`, which is filled in.
        graphs: The ONNX models by name, the keys of `manifest.graphs`.
        state: The initial state by name, in the stored layout; large ones may be made when they are written.
        reference: `batch/NAME`, `loss`, `gradient/NAME`, `noise/NAME`, `noise/loss`, in the stored layout.

    Returns:
        The manifest as written, with `files`.

    Raises:
        OutputError: A file cannot be written, or the arguments contradict the manifest.
    """
    directory = Path(directory)
    models = {name: _as_model(graphs[name]) for name in GRAPH_NAMES if name in graphs}
    problems = [
        *check_graphs(manifest, {name: _signature(model) for name, model in models.items()}),
        *check_state(manifest, state),
        *check_reference(manifest, reference),
    ]
    if problems:
        raise OutputError(
            f"The artifact contradicts its manifest: {problems[0]}. Nothing was written.", {"problems": problems}
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with externalised(list(models.values()), directory):
            for name, model in models.items():
                proto = ir.to_proto(model)
                _name_nodes(proto.graph)
                (directory / manifest.graphs[name].file).write_bytes(proto.SerializeToString(deterministic=True))
        write_tensors(directory / STATE_FILE, state)
        write_tensors(directory / REFERENCE_FILE, reference)
        names = [CONSTANTS_FILE, STATE_FILE, REFERENCE_FILE, *(manifest.graphs[name].file for name in models)]
        files = {name: sha256_of_file(directory / name) for name in names if (directory / name).is_file()}
        manifest = dataclasses.replace(manifest, files=files)
        (directory / MANIFEST_FILE).write_text(to_json(manifest), encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(f"The artifact {directory} cannot be written: {error.strerror or error}.") from error
    return manifest


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_model(model: ir.Model | onnx.ModelProto) -> ir.Model:
    return model if isinstance(model, ir.Model) else ir.from_proto(model)


def _signature(model: ir.Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    graph = model.graph
    inputs = tuple(value.name or "" for value in graph.inputs if value.name not in graph.initializers)
    return inputs, tuple(value.name or "" for value in graph.outputs)


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node without a name one: reports say by name where a node ran."""
    used = {node.name for node in _walk(graph)}
    for index, node in enumerate(_walk(graph)):
        if not node.name:
            name = f"{node.op_type}_{index}"
            while name in used:
                name += "_"
            used.add(name)
            node.name = name


def _walk(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for body in [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs:
                nodes.extend(_walk(body))
    return nodes
