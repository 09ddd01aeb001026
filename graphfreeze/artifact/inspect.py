"""A summary of an artifact, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from graphfreeze.artifact.configurations import losses_to_json, optimizers_to_json
from graphfreeze.artifact.reader import Artifact, read_artifact

__all__ = ["inspect_artifact"]

SCHEMA_VERSION = 1


def inspect_artifact(out: str | Path | Artifact) -> dict[str, Any]:
    """What the artifact trains, on what data, with what frozen.

    Args:
        out: OUT, OUT/training, or an artifact already read.

    Returns:
        The manifest's entries, with totals, the initial hyperparameters and the sizes of the files in bytes.

    Raises:
        ArtifactReadError: The artifact is missing or corrupt.
    """
    artifact = out if isinstance(out, Artifact) else read_artifact(out)
    manifest = artifact.manifest
    wholly_frozen = sum(entry.elements for entry in manifest.frozen)
    hyperparameters = [entry for entry in manifest.state if entry.role == "hyperparameter"]
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "artifact",
        "graphfreeze": manifest.graphfreeze,
        "versions": dict(manifest.versions),
        "opset": manifest.opset,
        "endpoint": manifest.endpoint,
        "forward_endpoint": manifest.forward_endpoint,
        **losses_to_json(manifest.losses),
        **optimizers_to_json(manifest.optimizers),
        "seed": manifest.seed,
        "batch": [asdict(entry) for entry in manifest.batch],
        "state": [asdict(entry) for entry in manifest.state],
        "frozen": [asdict(entry) for entry in manifest.frozen],
        "graphs": {
            name: {
                "file": graph.file,
                "inputs": len(graph.inputs),
                "outputs": len(graph.outputs),
                "bytes": _size(artifact.graph_path(name)),
            }
            for name, graph in manifest.graphs.items()
        },
        "files": {name: _size(artifact.directory / name) for name in manifest.files},
        "hyperparameters": {entry.name: artifact.state[entry.name].tolist() for entry in hyperparameters},
        "elements": sum(entry.elements or 0 for entry in manifest.parameters) + wholly_frozen,
        "frozen_elements": sum(entry.frozen_elements or 0 for entry in manifest.state) + wholly_frozen,
    }


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
