"""Whatever happens to a SavedModel's files: it is rewritten, or refused with exit code 3 or 4."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze.errors import FileError, UnsupportedError, UsageError
from tests.passes.models import MODELS
from tests.passes.tf1_models import save_model

from .mutations import damage, damage_bytes, places

POSITION = st.integers(0, 2**24)
HITS = st.lists(
    st.tuples(st.sampled_from(["graph_def", "object_graph_def", ""]), POSITION, POSITION, POSITION),
    min_size=1,
    max_size=4,
)
CUTS = st.lists(st.tuples(st.integers(0, 3), POSITION, POSITION), min_size=1, max_size=3)
FEW = settings(max_examples=20, suppress_health_check=list(HealthCheck))


TENSORFLOW_1 = {"references": False, "resources": True}


@pytest.fixture(scope="module", params=["control_flow", "custom_gradients", *TENSORFLOW_1])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "model"
    if request.param in TENSORFLOW_1:
        return save_model(path, resource=TENSORFLOW_1[request.param])
    MODELS[request.param].save(path)
    return path


def rewrite_or_refuse(model: Path, content: bytes, work: Path) -> None:
    """Try a model with another graph. That nothing is selected is no defect: damage may take all variables away."""
    damaged, out = work / "damaged", work / "out"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(model, damaged)
    (damaged / "saved_model.pb").write_bytes(content)
    try:
        graphfreeze.inspect(damaged)
        graphfreeze.rewrite(
            damaged, out, [graphfreeze.Selection("freeze", "** where w > 0")], onnx=False, checks="static"
        )
    except (FileError, UnsupportedError, UsageError) as error:
        assert "\n" not in str(error)
        assert [path.name for path in work.iterdir()] == ["damaged"]


def names(proto: Any) -> list[str]:
    graph = proto.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sorted(
        {node.name for node in nodes} | {node.op for node in nodes} | {f.signature.name for f in graph.library.function}
    )


@FEW
@given(hits=HITS)
def test_damaged_fields(model: Path, hits: list[tuple[str, int, int, int]]) -> None:
    proto = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    texts = names(proto)
    for part, position, kind, other in hits:
        found = list(places(getattr(proto.meta_graphs[0], part) if part and proto.meta_graphs else proto))
        if found:
            damage(found[position % len(found)], kind, other, texts)
    rewrite_or_refuse(model, proto.SerializeToString(), model.parent / "work")


@FEW
@given(cuts=CUTS)
def test_damaged_bytes(model: Path, cuts: list[tuple[int, int, int]]) -> None:
    content = (model / "saved_model.pb").read_bytes()
    for cut in cuts:
        content = damage_bytes(content, *cut)
    rewrite_or_refuse(model, content, model.parent / "work")


@FEW
@given(cuts=CUTS)
def test_damaged_checkpoints(model: Path, cuts: list[tuple[int, int, int]]) -> None:
    for name in ("variables.index", "variables.data-00000-of-00001"):
        damaged = model.parent / "checkpoint"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(model, damaged)
        content = (damaged / "variables" / name).read_bytes()
        for cut in cuts:
            content = damage_bytes(content, *cut)
        (damaged / "variables" / name).write_bytes(content)
        # What no part of the index refers to may be anything. Whatever else is damaged, its checksum tells.
        with contextlib.suppress(FileError):
            assert graphfreeze.inspect(damaged) == graphfreeze.inspect(model)
        rewrite_or_refuse(damaged, (model / "saved_model.pb").read_bytes(), model.parent / "work")
