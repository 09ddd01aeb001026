"""The training step's bindings: made once per batch shape, used in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from graphfreeze.artifact.manifest import GraphEntry
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.device_state import DeviceState
from graphfreeze.runtime.device_tensor import allocate, element_dtype, scalar_reader, writer
from graphfreeze.runtime.graph_runner import run_binding

__all__ = ["StepBindings"]

# A data set has two batch sizes, the last one being smaller. More shapes come from sequences of many lengths.
_KEPT_SHAPES = 8


_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Bound:
    """The bindings for one batch shape: `bindings[turn]` reads state copy `turn` and writes the other.

    What goes in and comes out in each step does so by functions that know their tensors.
    """

    batch: dict[str, Callable[[npt.NDArray[Any]], None]]
    losses: dict[str, Callable[[], float]]
    bindings: tuple[onnxruntime.IOBinding, onnxruntime.IOBinding]


class StepBindings:
    """Runs `train_step` with the state on the device; per step only the batch goes in and the loss comes out.

    Args:
        session: The session of `train_step`.
        graph: Its entry in the manifest.
        state: The state.
        device: Where it lives.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, graph: GraphEntry, state: DeviceState, device: Device
    ) -> None:
        self._session = session
        self._graph = graph
        self._state = state
        self._device = device
        self._loss_dtypes = {
            output.name: np.dtype(element_dtype(output.type))
            for output in session.get_outputs()
            if not output.name.startswith("new/")
        }
        stored = {f"new/{name}": tensor.shape() for name, tensor in state.current.items()}
        self._tiled = {
            output.name: output.shape
            for output in session.get_outputs()
            if output.name in stored and output.shape != stored[output.name]
        }
        self._bound: dict[_Shapes, _Bound] = {}
        self._recent: tuple[_Shapes, _Bound] | None = None

    def step(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        """Train on one batch, whose arrays have the graph's dtypes, and return `loss` and each `loss/OUTPUT`.

        Raises:
            DataError: onnxruntime stopped. The state is then what it was before the step.
        """
        bound = self._bindings_for(batch)
        for name, write in bound.batch.items():
            write(batch[name])
        run_binding(self._session, bound.bindings[self._state.turn], self._graph.file, self._device)
        self._state.advance()
        return {name: read() for name, read in bound.losses.items()}

    def _bindings_for(self, batch: Mapping[str, npt.NDArray[Any]]) -> _Bound:
        key = tuple([(name, array.shape) for name, array in batch.items()])
        if self._recent is not None and self._recent[0] == key:
            return self._recent[1]
        bound = self._bound.pop(key, None) or self._bind(batch)
        if len(self._bound) >= _KEPT_SHAPES:
            del self._bound[next(iter(self._bound))]
        self._bound[key] = bound
        self._recent = key, bound
        return bound

    def _bind(self, batch: Mapping[str, npt.NDArray[Any]]) -> _Bound:
        tensors = {
            name: allocate(array.shape, array.dtype, self._device)
            for name, array in batch.items()
            if name in self._graph.inputs
        }
        losses = {name: allocate((), dtype, self._device) for name, dtype in self._loss_dtypes.items()}
        bindings = []
        for turn in (0, 1):
            old, new = self._state.copies[turn], self._state.copies[1 - turn]
            binding = self._session.io_binding()
            for name in self._graph.inputs:
                binding.bind_ortvalue_input(name, tensors[name] if name in tensors else old[name])
            for name in self._graph.outputs:
                self._bind_output(binding, name, losses[name] if name in losses else new[name.removeprefix("new/")])
            bindings.append(binding)
        return _Bound(
            {name: writer(tensor) for name, tensor in tensors.items()},
            {name: scalar_reader(tensor) for name, tensor in losses.items()},
            (bindings[0], bindings[1]),
        )

    def _bind_output(self, binding: onnxruntime.IOBinding, name: str, tensor: onnxruntime.OrtValue) -> None:
        """Let an output be written into a tensor, which may have the same elements in another shape."""
        shape = self._tiled.get(name)
        if shape is None:
            binding.bind_ortvalue_output(name, tensor)
        else:
            binding.bind_output(name, "cpu", 0, tensor.element_type(), shape, tensor.data_ptr())
