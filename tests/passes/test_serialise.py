"""The bytes of a SavedModel, node by node, are protobuf's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.errors import UnsupportedError
from graphfreeze.passes import size_budget
from graphfreeze.passes.serialise import serialise
from tests.passes.models import MODELS


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_bytes_are_those_of_protobuf(name: str, tmp_path: Path) -> None:
    MODELS[name].save(tmp_path / "model")
    proto = saved_model_pb2.SavedModel.FromString((tmp_path / "model" / "saved_model.pb").read_bytes())
    assert b"".join(serialise(proto)) == proto.SerializeToString(deterministic=True)


def test_fields_of_a_later_version_are_kept() -> None:
    proto = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    proto.meta_graphs.add().graph_def.library.function.add().node_def.add(name="a")
    later = proto.SerializeToString() + b"\xfa\x7f\x01x"
    assert b"".join(serialise(saved_model_pb2.SavedModel.FromString(later))) == later


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_budget.SizeBudget.__init__, "__defaults__", (10, None))
    with pytest.raises(UnsupportedError, match="larger than 10 bytes"):
        serialise(saved_model_pb2.SavedModel(meta_graphs=[{"asset_file_def": [{"filename": "x" * 20}]}]))
