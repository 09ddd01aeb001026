"""A plain inference model: forward.onnx with its weights inside, for a state that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.artifact.layout import contiguous
from graphfreeze.artifact.reader import Artifact
from graphfreeze.errors import ArtifactReadError, OutputError

__all__ = ["DATA_FILE", "MODEL_FILE", "write_inference_model"]

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"

# One file is easier to carry around; protobuf ends at 2 GiB.
_ONE_FILE_LIMIT = 1 << 30


def write_inference_model(
    artifact: Artifact,
    state: Mapping[str, npt.NDArray[Any]],
    directory: Path,
    *,
    one_file_limit: int = _ONE_FILE_LIMIT,
) -> list[str]:
    """Write `model.onnx`: the artifact's forward graph, which takes the batch alone.

    Its nodes are those of forward.onnx; what was fed as state is a constant, so that a runtime may compute ahead
    whatever depends on weights only.

    Args:
        artifact: The artifact.
        state: The effective values of the parameters and model states that the forward graph takes, as stored.
        directory: Where to.
        one_file_limit: With more bytes of constants than this, they lie in `model.onnx.data`.

    Returns:
        The names of the files.

    Raises:
        ArtifactReadError: forward.onnx cannot be read, or the state lacks what it takes.
        OutputError: The files cannot be written.
    """
    path = artifact.graph_path("forward")
    try:
        model = ir.load(path)
    except Exception as error:  # onnx_ir lets through whatever protobuf and the file system raise
        raise ArtifactReadError(f"{path} cannot be read: {error}. Run `graphfreeze rewrite` again.") from error
    names = {entry.name for entry in artifact.manifest.state}
    given = [value for value in model.graph.inputs if value.name in names]
    for value in given:
        name = str(value.name)
        if name not in state:
            raise ArtifactReadError(f"{path} takes the state {name!r}, which has no value. Give another state.")
        value.const_value = ir.tensor(contiguous(state[name]), name=name, dtype=value.dtype)
        model.graph.inputs.remove(value)
        model.graph.register_initializer(value)
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    try:
        if size > one_file_limit:
            ir.save(model, directory / MODEL_FILE, external_data=DATA_FILE)
            return [MODEL_FILE, DATA_FILE]
        ir.external_data.load_to_model(model)
        (directory / MODEL_FILE).write_bytes(ir.to_proto(model).SerializeToString(deterministic=True))
    except OSError as error:
        raise OutputError(f"{directory / MODEL_FILE} cannot be written: {error.strerror or error}.") from error
    return [MODEL_FILE]
