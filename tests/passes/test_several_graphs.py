"""SavedModels with several graphs over one checkpoint: a variable is frozen in each of them, or in none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from click.testing import CliRunner
from tensorflow.core.protobuf import saved_model_pb2

import graphfreeze
from graphfreeze import Selection, UnsupportedError, UsageError
from graphfreeze.cli.commands import graphfreeze as command
from graphfreeze.savedmodel.meta_graphs import split_graphs
from tests.passes.tf1_models import BATCH, OPTIMIZERS, Session, v1

X = {"x": BATCH["x"]}
FREEZE = [Selection("freeze", "w[:, 0:2]")]


def forward(name: str = "w") -> tuple[Any, Any]:
    x = v1.placeholder(tf.float32, [None, 4], "x")
    return x, tf.identity(x @ v1.get_variable(name, [4, 3]), "y")


def train() -> tuple[Any, Any]:
    x, y = forward()
    tf.group(OPTIMIZERS["momentum"]().minimize(v1.reduce_sum(v1.square(y - 1.0))), name="train")
    v1.get_variable("u", [4, 3])
    return x, y


def save(path: Path, **graphs: Any) -> Path:
    """Save graphs by their tag; the first one has the values."""
    builder = v1.saved_model.Builder(str(path))
    for i, (tag, build) in enumerate(graphs.items()):
        with v1.Graph().as_default(), v1.Session() as session:
            v1.set_random_seed(1)
            x, y = build()
            session.run(v1.global_variables_initializer())
            signatures = {"f": v1.saved_model.predict_signature_def({"x": x}, {"y": y})}
            if i:
                builder.add_meta_graph([tag], signatures)
            else:
                builder.add_meta_graph_and_variables(session, [tag], signatures)
    builder.save()
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model", train=train, serve=forward, other=lambda: forward("u"))


def test_the_freeze_is_in_every_graph_that_restores_the_variable(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = graphfreeze.rewrite(model, out, FREEZE, tags="serve", onnx=False)
    functions = {read["function"] for read in report["variables"][0]["reads"]}
    assert functions == {"the main graph (serve)", "the main graph (train)"}
    assert len(report["variables"][0]["updates"]) == 2
    evidence = graphfreeze.verify(model, out)["checks"][0]["evidence"]
    assert [len(graph["variables"]) for graph in evidence["other_graphs"]] == [1, 0]
    with Session(out / "saved_model", ("train",)) as session:
        before = session.stored()
        for _ in range(5):
            session.run("train", X)
        after, expected = session.stored(), session.run("y:0", X)
        prefix = session.run_saver(tmp_path / "trained")
    same = before["w"] == after["w"]
    assert same[:, :2].all()
    assert not same[:, 2:].any()
    graphfreeze.fold(out, tmp_path / "folded", state=prefix)
    for tag in ("train", "serve"):
        with Session(tmp_path / "folded", (tag,)) as session:
            assert session.run("y:0", X).tobytes() == expected.tobytes()
    assert (tmp_path / "folded" / "saved_model.pb").read_bytes() == (model / "saved_model.pb").read_bytes()


def test_other_graphs_keep_their_bytes(model: Path, tmp_path: Path) -> None:
    graphfreeze.rewrite(model, tmp_path / "out", FREEZE, tags=["train"], onnx=False, checks="static")
    before, after = (split_graphs((p / "saved_model.pb").read_bytes()) for p in (model, tmp_path / "out/saved_model"))
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    graphfreeze.rewrite(model, tmp_path / "u", [Selection("freeze", "u")], tags="other", onnx=False, checks="static")
    after = split_graphs((tmp_path / "u/saved_model/saved_model.pb").read_bytes())
    # The training graph restores u, and never reads it.
    assert [a == b for a, b in zip(before, after, strict=True)][1:] == [True, False]


def test_the_prover_looks_at_every_graph(model: Path, tmp_path: Path) -> None:
    graphfreeze.rewrite(model, tmp_path / "out", FREEZE, tags="serve", onnx=False, checks="static")
    file = tmp_path / "out" / "saved_model" / "saved_model.pb"
    content = file.read_bytes()
    original = saved_model_pb2.SavedModel.FromString((model / "saved_model.pb").read_bytes())
    for position in range(3):
        proto = saved_model_pb2.SavedModel.FromString(content)
        if position < 2:
            proto.meta_graphs[position].CopyFrom(original.meta_graphs[position])
        else:
            proto.meta_graphs[position].graph_def.node.add(name="more", op="NoOp")
        file.write_bytes(proto.SerializeToString())
        with pytest.raises(graphfreeze.VerificationError):
            graphfreeze.verify(model, tmp_path / "out")
    proto = saved_model_pb2.SavedModel.FromString(content)
    del proto.meta_graphs[2]
    file.write_bytes(proto.SerializeToString())
    with pytest.raises(graphfreeze.VerificationError, match="expected 3 graphs, found 2"):
        graphfreeze.verify(model, tmp_path / "out")


def test_rewriting_again(model: Path, tmp_path: Path) -> None:
    graphfreeze.rewrite(model, tmp_path / "first", FREEZE, tags="serve", onnx=False, checks="static")
    first = tmp_path / "first" / "saved_model"
    more = [Selection("freeze", "w[0]")]
    report = graphfreeze.rewrite(first, tmp_path / "out", more, tags="serve", onnx=False, checks="static")
    assert report["totals"]["frozen_elements"] == 9
    with pytest.raises(UnsupportedError, match="Give the same tags"):
        graphfreeze.rewrite(first, tmp_path / "again", more, tags="train", onnx=False)


def test_a_graph_is_chosen_by_its_tags(model: Path, tmp_path: Path) -> None:
    assert [v["name"] for v in graphfreeze.inspect(model, tags="other")["variables"]] == ["u"]
    with pytest.raises(UsageError, match=r"holds 3 graphs, tagged train; serve; other. Choose one: --tags"):
        graphfreeze.inspect(model)
    with pytest.raises(UsageError, match=r"no graph tagged gpu,serve. It has: train; serve; other"):
        graphfreeze.rewrite(model, tmp_path / "out", FREEZE, tags="serve,gpu", onnx=False)
    with pytest.raises(UnsupportedError, match="several graphs, of which no training step"):
        graphfreeze.rewrite(model, tmp_path / "out", FREEZE, tags="serve", loss="mse")
    arguments = ["rewrite", str(model), str(tmp_path / "out"), "--freeze", "w", "--no-onnx", "--checks", "static"]
    assert isinstance(CliRunner().invoke(command, arguments).exception, UsageError)
    assert CliRunner().invoke(command, [*arguments, "--tags", "serve"]).exit_code == 0
    assert CliRunner().invoke(command, ["inspect", str(model), "--tags", "train"]).exit_code == 0


def test_a_graph_that_takes_a_value_in_another_way(tmp_path: Path) -> None:
    def partitioned() -> tuple[Any, Any]:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        with v1.variable_scope("", partitioner=v1.fixed_size_partitioner(2)):
            w = v1.get_variable("w", [4, 3])
        return x, tf.identity(x @ tf.convert_to_tensor(w), "y")

    model = save(tmp_path / "model", train=train, parts=partitioned)
    with pytest.raises(UnsupportedError, match=r"the graph tagged parts restores w/part_0 .* it would stay unfrozen"):
        graphfreeze.rewrite(model, tmp_path / "out", FREEZE, tags="train", onnx=False)
    with pytest.raises(UnsupportedError, match="the graph tagged train restores w "):
        graphfreeze.rewrite(model, tmp_path / "out", [Selection("freeze", "w/part_1")], tags="parts", onnx=False)
    graphfreeze.rewrite(model, tmp_path / "out", [Selection("freeze", "u")], tags="train", onnx=False)
