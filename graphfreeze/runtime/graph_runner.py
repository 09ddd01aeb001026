"""One graph of an artifact, run with named tensors: checking, gradients, prediction. Training has its own bindings."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime
from onnxruntime import OrtValue

from graphfreeze.artifact.reader import Artifact
from graphfreeze.errors import DataError
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.device_tensor import allocate, download, element_dtype, upload
from graphfreeze.runtime.placement import Placement, assigned_nodes, read_kernels
from graphfreeze.runtime.session import check_names, create_session, first_line

__all__ = ["GraphRunner", "run_binding"]


class GraphRunner:
    """Runs one graph.

    Args:
        artifact: The artifact.
        graph: The graph's name: `train_step`, `gradients`, `apply_gradients`, `forward`.
        device: Where to run.
        optimize: Whether onnxruntime may rearrange the graph.

    The first use raises ArtifactReadError where onnxruntime cannot load the file or its inputs and outputs are not
    those of the manifest, and ValidationError where the session does not get the device.
    """

    def __init__(self, artifact: Artifact, graph: str, device: Device, *, optimize: bool = True) -> None:
        self.graph = graph
        self.entry = artifact.manifest.graphs[graph]
        self.device = device
        self._path = artifact.graph_path(graph)
        self._optimize = optimize

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The session, made when it is first needed: preparing a large graph takes seconds."""
        return self._checked(create_session(self._path, self.device, optimize=self._optimize))

    @cached_property
    def input_types(self) -> dict[str, str]:
        """The type of each input, as onnxruntime names it."""
        return {i.name: i.type for i in self.session.get_inputs()}

    @cached_property
    def input_shapes(self) -> dict[str, list[int | str | None]]:
        """Each input's shape, with names for sizes that may change."""
        return {i.name: i.shape for i in self.session.get_inputs()}

    def __call__(self, values: Mapping[str, npt.NDArray[Any] | OrtValue]) -> dict[str, npt.NDArray[Any]]:
        """Run the graph once and return its outputs in new arrays.

        Args:
            values: At least the graph's inputs; arrays are copied to the device, OrtValues are read where they are.

        Raises:
            DataError: onnxruntime stopped, over an index out of range for example.
        """
        return self._run(self.session, values)

    def placement(self, values: Mapping[str, npt.NDArray[Any] | OrtValue]) -> Placement:
        """Run the graph once under onnxruntime's profiler and return where its nodes ran."""
        with tempfile.TemporaryDirectory() as directory:
            prefix = Path(directory) / self.graph
            session = self._checked(
                create_session(self._path, self.device, optimize=self._optimize, profile_prefix=prefix)
            )
            try:
                self._run(session, values)
            finally:
                profile = Path(session.end_profiling())
            kernels = read_kernels(profile)
        return Placement(self._path.name, self.device, assigned_nodes(session), kernels, self.entry.host_side)

    def _checked(self, session: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
        """The session, if its inputs and outputs are those of the manifest."""
        check_names(session, self.entry, self._path)
        return session

    def _run(
        self, session: onnxruntime.InferenceSession, values: Mapping[str, npt.NDArray[Any] | OrtValue]
    ) -> dict[str, npt.NDArray[Any]]:
        binding = session.io_binding()
        types = {i.name: i.type for i in session.get_inputs()}
        for name in self.entry.inputs:
            value = values[name]
            if not isinstance(value, OrtValue):
                array, value = value, allocate(value.shape, element_dtype(types[name]), self.device)
                upload(array, value)
            binding.bind_ortvalue_input(name, value)
        for name in self.entry.outputs:
            binding.bind_output(name, self.device.kind, 0)
        run_binding(session, binding, self._path.name, self.device)
        return {name: download(value) for name, value in zip(self.entry.outputs, binding.get_outputs(), strict=True)}


def run_binding(
    session: onnxruntime.InferenceSession, binding: onnxruntime.IOBinding, graph: str, device: Device
) -> None:
    """Run a session with its bound tensors, and wait for the device. The CPU has nothing to wait for.

    Raises:
        DataError: onnxruntime stopped.
    """
    try:
        if device.kind == "cpu":
            session.run_with_iobinding(binding)
        else:
            binding.synchronize_inputs()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
    except Exception as error:  # onnxruntime raises bare exceptions of many kinds
        raise DataError(
            f"onnxruntime stopped in {graph}: {first_line(error)}. Check that labels and indices are in range; "
            "if memory ran out, use smaller batches."
        ) from error
