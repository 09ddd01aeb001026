"""The same checkpoint in every form that programs write: each function changes the one of a SavedModel in place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphfreeze.savedmodel.checkpoint_index import read_index
from tests.hostile.checkpoints import varint, write_index

__all__ = ["FORMATS", "make_big_endian", "snappy"]


def _tensors(prefix: Path) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {key: reader.get_tensor(key) for key in sorted(reader.get_variable_to_shape_map())}


def _save(prefix: Path, names: list[str], slices: list[str], tensors: list[Any]) -> None:
    with tf.device("CPU:0"):
        tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=slices, tensors=tensors)


def _replace(prefix: Path, make: Callable[[Path], None]) -> None:
    """Put the checkpoint that `make` writes in the place of another one."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / prefix.name)
        for file in prefix.parent.glob(f"{prefix.name}.*"):
            file.unlink()
        for file in Path(folder).glob(f"{prefix.name}.*"):
            shutil.move(file, prefix.parent)


def several_shards(prefix: Path) -> None:
    """One shard for each tensor."""

    def make(target: Path) -> None:
        parts = []
        for number, (key, value) in enumerate(tensors.items()):
            parts.append(f"{target}_part{number}")
            _save(Path(parts[-1]), [key], [""], [value])
        tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(target))

    tensors = _tensors(prefix)
    _replace(prefix, make)
    assert len(list(prefix.parent.glob(f"{prefix.name}.data-*"))) == len(tensors) > 3


def partitioned(prefix: Path) -> None:
    """Every tensor of two rows or more in two parts."""
    tensors = _tensors(prefix)
    names, slices, parts = [], [], []
    for key, value in tensors.items():
        # A string comes as bytes.
        if np.ndim(value) and value.shape[0] > 1:
            sizes = " ".join(map(str, value.shape))
            rest = ":-" * (value.ndim - 1)
            names += [key, key]
            slices += [f"{sizes} 0,1{rest}", f"{sizes} 1,{value.shape[0] - 1}{rest}"]
            parts += [value[:1], value[1:]]
        else:
            names.append(key)
            slices.append("")
            parts.append(value)
    assert len(parts) > len(tensors)
    _replace(prefix, lambda target: _save(target, names, slices, parts))


def compressed(prefix: Path) -> None:
    """The index is compressed, as builds of TensorFlow before 1.1 and other programs write it."""
    index = read_index(str(prefix))
    before = Path(f"{prefix}.index").stat().st_size
    write_index(Path(f"{prefix}.index"), index.entries, index.header.num_shards, compress=snappy)
    assert Path(f"{prefix}.index").stat().st_size < before or before < 1000


def several_compressed_partitioned(prefix: Path) -> None:
    """All at once."""
    partitioned(prefix)
    compressed(prefix)


FORMATS: dict[str, Callable[[Path], None]] = {
    "several shards": several_shards,
    "partitioned": partitioned,
    "compressed": compressed,
    "compressed and partitioned": several_compressed_partitioned,
}


def make_big_endian(prefix: Path) -> None:
    """A header that says so; the tensors' bytes stay."""
    index = read_index(str(prefix))
    write_index(Path(f"{prefix}.index"), index.entries, index.header.num_shards, big_endian=True)


def snappy(content: bytes) -> bytes:
    """Compress greedily: literals of up to 60 bytes, and copies of 4 to 64 bytes, in all three widths."""
    result = bytearray(varint(len(content)))
    seen: dict[bytes, int] = {}
    position = start = 0

    def literal(end: int) -> None:
        for first in range(start, end, 60):
            piece = content[first : min(first + 60, end)]
            result.append((len(piece) - 1) << 2)
            result.extend(piece)

    while position < len(content):
        word = content[position : position + 4]
        match = seen.get(word) if len(word) == 4 else None
        seen[word] = position
        if match is None:
            position += 1
            continue
        literal(position)
        length = 4
        while (
            length < 64
            and content[position + length : position + length + 1]
            == content[match + length : match + length + 1]
            != b""
        ):
            length += 1
        result.extend(_copy(position - match, length))
        start = position = position + length
    literal(len(content))
    return bytes(result)


def _copy(offset: int, length: int) -> bytes:
    if offset < 2048 and length < 12:
        return bytes([offset >> 8 << 5 | (length - 4) << 2 | 1, offset & 255])
    if offset < 4096:
        return bytes([(length - 1) << 2 | 2]) + offset.to_bytes(2, "little")
    return bytes([(length - 1) << 2 | 3]) + offset.to_bytes(4, "little")
