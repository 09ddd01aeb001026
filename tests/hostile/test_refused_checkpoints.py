"""Models made to do harm by their checkpoint, one at a time: each is refused in one line, in little time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow.core.protobuf import tensor_bundle_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.checkpoint import Checkpoint

from .checkpoints import masked_crc, write_index
from .lookup_model import SHARD, refused


def test_wrong_checksums(model: Path) -> None:
    content = bytearray((model / SHARD).read_bytes())
    content[1] ^= 1
    (model / SHARD).write_bytes(content)
    assert "Checksum does not match" in refused(model)


def entry(**fields: Any) -> tensor_bundle_pb2.BundleEntryProto:
    made = tensor_bundle_pb2.BundleEntryProto(**{"dtype": 1, "size": 16, "crc32c": masked_crc(bytes(16)), **fields})
    if not made.HasField("shape"):
        made.shape.dim.add(size=4)
    return made


def shape(*sizes: int, unknown_rank: bool = False) -> Any:
    return {"dim": [{"size": size} for size in sizes], "unknown_rank": unknown_rank}


ABSURD = {
    "huge": entry(shape=shape(2**40), size=2**42),
    "negative": entry(shape=shape(-4)),
    "overflow": entry(shape=shape(2**40, 2**40)),
    "overflow behind zero": entry(shape=shape(0, 2**62, 2**62), size=0),
    "rank": entry(shape=shape(*[1] * 300)),
    "no rank": entry(shape=shape(unknown_rank=True)),
    "dtype": entry(dtype=99),
    "no dtype": entry(dtype=0),
    "many texts": entry(dtype=7, shape=shape(2**28)),
    "many variants": entry(dtype=21, shape=shape(2**28)),
    "behind the end": entry(offset=8),
    "before the start": entry(offset=-8),
    "negative size": entry(size=-16),
    "too small": entry(size=8),
    "another shard": entry(shard_id=7),
    "parts of nothing": entry(shape=shape(2**40), size=0, slices=[{"extent": [{"start": 0, "length": 2**40}]}]),
    "parts outside": entry(size=0, slices=[{"extent": [{"start": 3, "length": 2}]}]),
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_entries(tmp_path: Path, name: str) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / SHARD).write_bytes(bytes(16))
    write_index(tmp_path / "variables" / "variables.index", {"v": ABSURD[name]})
    with pytest.raises(ModelReadError, match=r"variables\.index cannot be read: its entry 'v'"):
        _ = Checkpoint(tmp_path).shapes


def test_good_entries(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    (tmp_path / SHARD).write_bytes(bytes(16))
    write_index(tmp_path / "variables" / "variables.index", {"v": entry()})
    np.testing.assert_array_equal(Checkpoint(tmp_path).read("v"), np.zeros(4, np.float32))
