"""Graphs of TensorFlow 1 with control flow, calls and updates of every kind, trained in a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from tests.passes.tf1_graphs import GRAPHS, Graph, X, averages, build, inputs, minimize, variable
from tests.passes.tf1_models import Session, v1
from tests.passes.tf1_rewriting import KINDS, rewrite


def columns_held(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    """Whether the first two columns of a matrix kept their bits, and the others moved."""
    same = before[name].view(np.uint32) == after[name].view(np.uint32)
    return bool(same[:, :2].all() and not same[:, 2:].any())


@KINDS
@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs(tmp_path: Path, graph: Graph, resource: bool) -> None:
    model = build(graph, tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "w[:, 0:2]")
    with Session(model) as session:
        expected, before = session.run("y:0", X), session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        assert session.run("y:0", X).tobytes() == expected.tobytes()
        for _ in range(5):
            session.run("train", X)
        assert columns_held(before, session.stored(), "w")


@KINDS
def test_averages_follow_what_was_just_trained(tmp_path: Path, resource: bool) -> None:
    model = build(averages, tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "w[0, 0]", checks="static")
    after = []
    for path in (model, tmp_path / "out" / "saved_model"):
        with Session(path) as session:
            before = session.stored()
            session.run("train", X)
            after.append(session.stored())
    for found in after:
        w, average = found["w"], found["w/ExponentialMovingAverage"]
        np.testing.assert_allclose(average, (w + before["w"]) / 2, rtol=1e-5, atol=1e-6)
    for name in ("w", "w/ExponentialMovingAverage"):
        assert after[0][name][1:].tobytes() == after[1][name][1:].tobytes()
    assert after[1]["w"][0, 0] == before["w"][0, 0] == after[1]["w/ExponentialMovingAverage"][0, 0]


@KINDS
def test_values_of_references_without_a_read(tmp_path: Path, resource: bool) -> None:
    def counter(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w = inputs(), variable("w", [4, 3], resource)
        more = v1.assign_add(w, tf.ones([4, 3]))
        more = tf.identity(more) if resource else more
        with v1.control_dependencies([v1.assign_add(w, tf.ones([4, 3]))]):
            later = v1.get_default_graph().get_tensor_by_name("w:0") * 2.0 if not resource else w.read_value() * 2.0
        return {"x": x}, {"y": tf.identity(x @ later, "y"), "more": more, "w": w.read_value() if resource else w._ref()}

    model = build(counter, tmp_path / "model", resource=resource)
    report = rewrite(model, tmp_path / "out", "w[:, 0:2]")
    held = [check for check in report["checks"] if "own training steps" in check["name"]]
    assert held
    assert held[0]["passed"]
    with Session(tmp_path / "out" / "saved_model") as session:
        before = session.stored()["w"]
        outputs = session.outputs()
        first = session.run(outputs["more"], X)
        assert (first[:, :2] == before[:, :2]).all()
        np.testing.assert_allclose(first[:, 2], before[:, 2] + 1.0, rtol=1e-6)
        y = session.run(outputs["y"], X)
        effective = before.copy()
        effective[:, 2] += 2.0
        np.testing.assert_allclose(y, X["x"] @ (2.0 * effective), rtol=1e-5, atol=1e-5)
        assert (session.run(outputs["w"], X)[:, :2] == before[:, :2]).all()


@KINDS
def test_partitioned_variables(tmp_path: Path, resource: bool) -> None:
    def partitioned(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x = inputs()
        with v1.variable_scope("s", partitioner=v1.fixed_size_partitioner(2), use_resource=resource):
            w = v1.get_variable("w", [4, 3])
        y = tf.identity(x @ tf.convert_to_tensor(w), "y")
        minimize(y, "adam")
        return {"x": x}, {"y": y}

    model = build(partitioned, tmp_path / "model", resource=resource)
    listed = {v["name"]: v for v in graphfreeze.inspect(model)["variables"]}
    assert listed["s/w/part_1"]["object_path"] == "s/w:2,2:0,3"
    assert listed["s/w/part_1"]["shape"] == [2, 3]
    rewrite(model, tmp_path / "out", "s/w/part_1[:, 0:2] := 0.5")
    with Session(model) as session:
        before = session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(5):
            session.run("train", X)
        after, expected = session.stored(), session.run("y:0", X)
        prefix = session.run_saver(tmp_path / "trained")
    assert columns_held(before, after, "s/w/part_1")
    assert (before["s/w/part_0"] != after["s/w/part_0"]).all()
    graphfreeze.fold(tmp_path / "out", tmp_path / "folded", state=prefix)
    with Session(tmp_path / "folded") as session:
        assert session.run("y:0", X).tobytes() == expected.tobytes()
        assert (session.stored()["s/w/part_1"][:, :2] == 0.5).all()
        session.run("train", X)
