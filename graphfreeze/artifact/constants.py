"""Large constants of several ONNX models in one file that they share."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import onnx_ir as ir

__all__ = ["CONSTANTS_FILE", "THRESHOLD", "externalised"]

CONSTANTS_FILE = "constants.bin"
THRESHOLD = 1024
"""Constants of more bytes than this leave the ONNX file."""

_LONGEST_SIZES = 1 << 16
"""Up to so many bytes a vector of int64 stays in the ONNX file: sizes are read when shapes are inferred at loading."""

_ALIGNMENT = 64
# For a file that is mapped, ONNX asks for a multiple of the page size; Windows allocates in steps of 64 KiB.
_LARGE = 1 << 20
_LARGE_ALIGNMENT = 1 << 16


@contextlib.contextmanager
def externalised(models: Sequence[ir.Model], directory: Path) -> Iterator[None]:
    """While the body runs, the models' large initializers point into `directory/constants.bin`, which is written.

    Equal bytes are stored once. The order is that of the models and of their initializers, so equal models give equal
    bytes. Afterwards the models are as they were. No large constant: no file.
    """
    large = [
        (value, tensor)
        for model in models
        for graph in model.graphs()
        for value in graph.initializers.values()
        if (tensor := value.const_value) is not None and _is_large(tensor)
    ]
    try:
        if large:
            with (directory / CONSTANTS_FILE).open("wb") as file:
                offsets: dict[bytes, int] = {}
                for value, tensor in large:
                    content = tensor.tobytes()
                    digest = hashlib.sha256(content).digest()
                    if digest not in offsets:
                        offsets[digest] = _append(file, content)
                    value.const_value = ir.ExternalTensor(
                        CONSTANTS_FILE,
                        offsets[digest],
                        len(content),
                        tensor.dtype,
                        shape=ir.Shape(tensor.shape.numpy()),
                        name=value.name or "",
                        base_dir=directory,
                    )
        yield
    finally:
        for value, tensor in large:
            value.const_value = tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    may_be_sizes = tensor.dtype == ir.DataType.INT64 and len(tensor.shape) == 1
    return tensor.nbytes > (_LONGEST_SIZES if may_be_sizes else THRESHOLD)


def _append(file: IO[bytes], content: bytes) -> int:
    alignment = _LARGE_ALIGNMENT if len(content) >= _LARGE else _ALIGNMENT
    offset = -(-file.tell() // alignment) * alignment
    file.write(b"\0" * (offset - file.tell()))
    file.write(content)
    return offset
