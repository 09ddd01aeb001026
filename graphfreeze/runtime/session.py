"""onnxruntime sessions, made the same way wherever graphfreeze runs a graph."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from graphfreeze.artifact.manifest import GraphEntry
from graphfreeze.errors import ArtifactReadError, ValidationError
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.tiling import tiled_model

__all__ = ["check_names", "create_session", "first_line"]

# How long a thread looks for work before it sleeps. The nodes of a step follow each other in less. By default it is a
# hundredth of a second and more, which a processor that others use too pays with half of its speed.
_SPIN_MICROSECONDS = 50


def create_session(
    path: Path,
    device: Device,
    *,
    optimize: bool = True,
    profile_prefix: Path | None = None,
    tiled: bool = False,
) -> onnxruntime.InferenceSession:
    """Load an ONNX file for a device.

    Args:
        path: The ONNX file.
        device: Where its nodes run.
        optimize: Whether onnxruntime may rearrange the graph.
        profile_prefix: Where given, the session records what ran where, into a file whose name starts so.
        tiled: Whether large updates may run tile by tile where that is faster. Their outputs then have other shapes.

    Raises:
        ArtifactReadError: onnxruntime cannot load the file.
        ValidationError: The session did not get the device.
    """
    options = onnxruntime.SessionOptions()
    # What matters is raised as an exception; onnxruntime would print it as well.
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    # Planning which tensors share memory takes time quadratic in the nodes (half a minute for ten thousand), and saves
    # none that was measured: the arena hands freed blocks out again either way.
    options.enable_mem_reuse = False
    if device.threads is not None:
        options.intra_op_num_threads = device.threads
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS))
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    try:
        model = tiled_model(path) if tiled and device.kind == "cpu" else None
        if model is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
        source = str(path) if model is None else model.SerializeToString()
        # By default it would print an error and try the same once more.
        session = onnxruntime.InferenceSession(source, options, providers=device.providers, enable_fallback=0)
    except Exception as error:  # onnxruntime raises bare exceptions of many kinds
        raise ArtifactReadError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
    if device.provider not in session.get_providers():
        raise ValidationError(
            f"{path.name} was to run on {device.kind}, and onnxruntime loaded it for {session.get_providers()} only."
        )
    return session


def check_names(session: onnxruntime.InferenceSession, entry: GraphEntry, path: Path) -> None:
    """Check that a session takes and gives what the manifest says.

    Raises:
        ArtifactReadError: It takes other inputs, or lacks an output.
    """
    taken, given = ({tensor.name for tensor in tensors} for tensors in (session.get_inputs(), session.get_outputs()))
    if taken != set(entry.inputs):
        raise ArtifactReadError(
            f"{path} takes {sorted(taken)}, manifest.json says {sorted(entry.inputs)}. Run `graphfreeze rewrite` again."
        )
    if absent := [name for name in entry.outputs if name not in given]:
        raise ArtifactReadError(
            f"{path} lacks the output {absent[0]!r} that manifest.json lists. Run `graphfreeze rewrite` again."
        )


def first_line(error: Exception) -> str:
    """The first line of an onnxruntime message, which may go on for pages."""
    return (str(error).splitlines() or [type(error).__name__])[0]
