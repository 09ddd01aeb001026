"""The state on the device, twice: a step reads one copy and writes the other, and then they change places.

A graph may write `new/NAME` before it has read NAME for the last time: with one tensor as input and output the numbers
would be wrong, without a word. What no step changes exists once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt
from onnxruntime import OrtValue

from graphfreeze.artifact.manifest import StateEntry
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.device_tensor import allocate, download, upload
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["DeviceState"]


class DeviceState:
    """The state's tensors.

    Args:
        entries: What the state holds.
        values: The values to start with, by name, in the stored layout.
        device: Where the tensors live.

    Attributes:
        copies: The two copies, each a mapping from names to tensors.
        turn: Which copy is current: 0 or 1.
    """

    def __init__(self, entries: Iterable[StateEntry], values: Mapping[str, npt.NDArray[Any]], device: Device) -> None:
        self.copies: tuple[dict[str, OrtValue], dict[str, OrtValue]] = ({}, {})
        self.turn = 0
        for entry in entries:
            first = allocate(entry.stored_shape, numpy_dtype(entry.dtype), device)
            upload(values[entry.name], first)
            second = allocate(entry.stored_shape, numpy_dtype(entry.dtype), device) if entry.updated else first
            self.copies[0][entry.name], self.copies[1][entry.name] = first, second

    @property
    def current(self) -> dict[str, OrtValue]:
        """The tensors that the next step reads."""
        return self.copies[self.turn]

    def advance(self) -> None:
        """Make the copy that a step has just written the current one."""
        self.turn = 1 - self.turn

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor's value, in a new array."""
        return download(self.current[name])

    def write(self, name: str, value: npt.NDArray[Any]) -> None:
        """Replace a tensor's value."""
        upload(value, self.current[name])
