"""A safetensors file that is written one tensor at a time, so that they need not be in memory together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from graphfreeze.selection.variable import numpy_dtype

__all__ = ["DTYPES", "Pending", "write_tensors"]

_NAMES = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    **{f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}
DTYPES = {name: numpy_dtype(dtype) for dtype, name in _NAMES.items()}
"""The dtypes that such a file can hold, by its own names for them."""

_ALIGNMENT = 8


@dataclass(frozen=True)
class Pending:
    """A tensor that is made when it is to be written.

    Attributes:
        dtype: Its dtype.
        shape: Its shape.
        make: Makes it, as one array or in consecutive pieces of its elements in row-major order.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    make: Callable[[], npt.NDArray[Any] | Iterator[npt.NDArray[Any]]]

    @property
    def nbytes(self) -> int:
        """How many bytes it takes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write_tensors(path: Path, tensors: Mapping[str, Pending]) -> None:
    """Write the file. The same tensors give the same bytes.

    The largest elements come first, and then the names in order, so that every tensor is aligned.

    Raises:
        OSError: It cannot be written.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype.name], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            _write(file, name, tensors[name])


def _write(file: IO[bytes], name: str, tensor: Pending) -> None:
    made = tensor.make()
    if isinstance(made, np.ndarray) and made.shape != tensor.shape:
        raise ValueError(f"{name} has shape {made.shape}, not what was announced")
    size = 0
    for piece in (made,) if isinstance(made, np.ndarray) else made:
        # The file holds the elements in row-major order and little-endian, whatever the array's strides.
        array = np.asarray(piece, dtype=piece.dtype.newbyteorder("<"), order="C")
        if array.dtype != tensor.dtype:
            raise ValueError(f"{name} is {array.dtype}, not what was announced")
        file.write(array.reshape(-1).view(np.uint8).data)
        size += array.nbytes
    if size != tensor.nbytes:
        raise ValueError(f"{name} takes {size} bytes, not what was announced")
