"""How often the models are loaded while they are compared, and that it makes no difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.checks.behaviour import check_behaviour
from graphfreeze.checks.side import Side
from graphfreeze.checks.state_changes import may_change_state
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, Selection, resolve_plan

VECTORS = [tf.TensorSpec((None, 3), tf.float32, name="x")]
Loads = list[str]


class Several(tf.Module):
    """Endpoints that read, that update a variable, and that update what no path leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.eye(3) + 0.1, name="w")
        self.mean = tf.Variable(tf.zeros(3), name="mean", trainable=False)
        self.table = tf.lookup.experimental.DenseHashTable(tf.int64, tf.float32, 0.0, -1, -2)

    @tf.function(input_signature=VECTORS)
    def a_plain(self, x: Any) -> Any:
        return tf.matmul(x, self.w)

    @tf.function(input_signature=VECTORS)
    def b_loop(self, x: Any) -> Any:
        for _ in tf.range(tf.shape(x)[0]):
            x = tf.tanh(tf.matmul(x, self.w))
        return x

    @tf.function(input_signature=VECTORS)
    def c_mean(self, x: Any) -> Any:
        self.mean.assign_add(tf.reduce_mean(x, 0))
        return tf.matmul(x, self.w) + self.mean

    @tf.function(input_signature=VECTORS)
    def d_loop_again(self, x: Any) -> Any:
        return self.b_loop(x) + self.mean

    @tf.function(input_signature=VECTORS)
    def e_counts(self, x: Any) -> Any:
        before = self.count()
        self.table.insert(tf.constant(7, tf.int64), before + 1)
        return tf.matmul(x, self.w) + before

    @tf.function(input_signature=VECTORS)
    def f_sees_the_count(self, x: Any) -> Any:
        return tf.matmul(x, self.w) + self.count()

    def count(self) -> Any:
        return tf.reshape(self.table.lookup(tf.constant(7, tf.int64)), ())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    path = tmp_path_factory.mktemp("several") / "model"
    tf.saved_model.save(Several(), str(path))
    return SavedModel.load(path)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Loads:
    """The directories that are loaded, one after the other."""
    found: Loads = []
    load: Callable[..., Any] = tf.saved_model.load

    def counting(path: str, *arguments: Any, **options: Any) -> Any:
        found.append(Path(path).name)
        return load(path, *arguments, **options)

    monkeypatch.setattr(tf.saved_model, "load", counting)
    return found


def rewrite(model: SavedModel, out: Path, *only_in: str) -> FreezePlan:
    plan = resolve_plan([Selection("freeze", "w[0]")], model, form="auto", only_in=only_in)
    write(freeze_reads(model, plan), out)
    return plan


def test_what_only_reads_is_compared_in_models_that_are_loaded_once(
    model: SavedModel, tmp_path: Path, loads: Loads
) -> None:
    plan = rewrite(model, tmp_path / "out")
    outputs, gradients = check_behaviour(model.directory, tmp_path / "out", model.variables, plan)
    # The pair that e_counts changed is followed by another.
    assert loads == ["model", "out", "model", "out"]
    endpoints = ["a_plain", "b_loop", "c_mean", "d_loop_again", "e_counts", "f_sees_the_count"]
    # The first call of each model finds the table empty. Before its gradients, one was called twice, the other once.
    for check, counted in ((outputs, "equal"), (gradients, "not repeatable")):
        expected = dict.fromkeys(endpoints, "equal") | {"e_counts": counted}
        assert {record["endpoint"]: record["status"] for record in check["evidence"]["compared"]} == expected


def test_another_plan_is_compared_in_models_of_its_own(model: SavedModel, tmp_path: Path, loads: Loads) -> None:
    plan = resolve_plan([Selection("freeze", "w[0] := 9")], model, form="auto", only_in=("b_loop", "c_mean"))
    write(freeze_reads(model, plan), tmp_path / "out")
    assert all(c["passed"] for c in check_behaviour(model.directory, tmp_path / "out", model.variables, plan))
    # a_plain; b_loop and c_mean with the frozen values; d_loop_again and e_counts without; f_sees_the_count.
    assert loads == ["model", "out"] * 4


def test_what_fails_in_models_that_have_run_is_observed_once_more(
    model: SavedModel, tmp_path: Path, loads: Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = rewrite(model, tmp_path / "out")
    gradients = Side.gradients
    failed: list[Loads] = []

    def failing(side: Side, batch: Any) -> Any:
        if side.endpoint.name == "b_loop" and not failed:
            failed.append(loads.copy())
            raise LookupError("the gradient function is gone")
        return gradients(side, batch)

    monkeypatch.setattr(Side, "gradients", failing)
    _, check = check_behaviour(model.directory, tmp_path / "out", model.variables, plan)
    assert failed == [["model", "out"]]
    assert loads == ["model", "out"] * 3
    assert not check["evidence"]["skipped"]
    assert "b_loop" in {record["endpoint"] for record in check["evidence"]["compared"]}


@pytest.mark.parametrize(
    ("name", "changes"),
    [("a_plain", False), ("b_loop", False), ("c_mean", True), ("e_counts", True), ("f_sees_the_count", False)],
)
def test_changes_of_state_are_seen(model: SavedModel, name: str, changes: bool) -> None:
    side = Side.load(model.directory, name, model.variables)
    side.gradients({"x": np.ones((2, 3), np.float32)})
    assert may_change_state(side.function, []) == changes
    handles = [resource.handle for resource in side.resources.values()]
    assert may_change_state(side.function, handles) == (name == "e_counts")


def test_random_numbers_and_functions_that_are_nowhere_count_as_changes() -> None:
    drawing = tf.function(lambda: tf.random.normal((2,)), autograph=False).get_concrete_function()
    assert may_change_state(drawing, [])

    class Graph:
        def as_graph_def(self) -> Any:
            with tf.Graph().as_default() as graph:
                tf.constant(1.0)
            found = graph.as_graph_def()
            found.node[0].attr["f"].func.name = "absent"
            return found

    class Function:
        graph = Graph()
        captured_inputs = ()

    assert may_change_state(Function(), [])
