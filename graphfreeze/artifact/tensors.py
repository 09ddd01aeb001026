"""Named tensors on disk: safetensors, written deterministically, read one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection import tensor_stream
from graphfreeze.selection.bool_bytes import odd_bool
from graphfreeze.selection.tensor_stream import Pending

__all__ = ["Pending", "TensorFile", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, npt.NDArray[Any] | Pending]) -> None:
    """Write the tensors to a safetensors file; the order of the mapping does not matter.

    Raises:
        OSError: It cannot be written.
    """
    tensor_stream.write_tensors(path, {name: _pending(tensor) for name, tensor in tensors.items()})


def _pending(tensor: npt.NDArray[Any] | Pending) -> Pending:
    if isinstance(tensor, Pending):
        return tensor
    return Pending(tensor.dtype.newbyteorder("="), tensor.shape, lambda: tensor)


class TensorFile(Mapping[str, npt.NDArray[Any]]):
    """A safetensors file as a mapping; a tensor is read when it is asked for, and never kept.

    Raises:
        ArtifactReadError: The file is missing or not a whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = _open(path)
            self._names = dict.fromkeys(self._file.keys())
        except FileNotFoundError as error:
            raise ArtifactReadError(f"{path} is missing. Expected a safetensors file.") from error
        except (OSError, SafetensorError) as error:
            raise ArtifactReadError(f"{path} is not a readable safetensors file: {error}.") from error

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self._names:
            raise KeyError(name)
        try:
            tensor: npt.NDArray[Any] = self._file.get_tensor(name)
        except (SafetensorError, AttributeError, TypeError) as error:
            raise ArtifactReadError(f"{self.path}: the tensor {name} cannot be read: {error}.") from error
        if (odd := odd_bool(tensor)) is not None:
            raise ArtifactReadError(
                f"{self.path}: the tensor {name} holds the byte {odd}, expected bools, each a byte that is 0 or 1. "
                "Copy the file again, or make it anew."
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it."""
        return tuple(self._file.get_slice(name).get_shape())


def _open(path: Path) -> Any:
    return safe_open(path, framework="numpy")
