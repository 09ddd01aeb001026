"""SavedModels of TensorFlow 1: reference and resource variables, trained by the graph's own operations in a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze import Selection, UnsupportedError
from graphfreeze.errors import UnsupportedVariableUseError
from tests.passes.tf1_graphs import build, inputs, minimize, variable
from tests.passes.tf1_models import BATCH, OPTIMIZERS, Session, save_model, v1
from tests.passes.tf1_rewriting import KINDS, rewrite


@KINDS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_frozen_elements_stay_in_storage_and_slots(tmp_path: Path, resource: bool, optimizer: str) -> None:
    # Slots that are not zero move what is stored, even without a gradient.
    model = save_model(tmp_path / "model", resource=resource, optimizer=optimizer, warm=2)
    checks = "full" if optimizer == "momentum" else "static"
    report = rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[[1, 2]]", "m/b[0]", checks=checks)
    assert [v["name"] for v in report["variables"]] == ["m/b", "m/e", "m/w"]
    masks = {v["name"]: np.zeros(v["shape"], bool) for v in report["variables"]}
    masks["m/w"][:, 0:2] = masks["m/e"][[1, 2]] = masks["m/b"][0] = True
    with Session(model) as session:
        expected, before = session.run("y:0"), session.stored()
    with Session(tmp_path / "out" / "saved_model") as session:
        assert session.run("y:0").tobytes() == expected.tobytes()
        for _ in range(20):
            session.run("train")
        after = session.stored()
    held = [name for name in before if name[:3] in masks and before[name].shape == masks[name[:3]].shape]
    assert len(held) >= 3
    for name in held:
        same = before[name].view(np.uint32) == after[name].view(np.uint32)
        frozen = masks[name[:3]].copy()
        assert same[frozen].all(), name
        # The batch names no row 3 of the embedding.
        frozen[3:4] |= name[:3] == "m/e"
        assert not same[~frozen].any(), name


@KINDS
def test_trainable_elements_train_as_in_the_original_that_puts_frozen_ones_back(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource, warm=1)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2] := 0.25", checks="static")
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(3):
            session.run("train")
        found, output = session.stored(), session.run("y:0")
    with Session(model) as session:
        start = session.stored()
        held = {n: start[n].copy() for n in ("m/w", "m/w/Momentum")}
        assign = session.assigner(["m/w", "m/w/Momentum"])
        for _ in range(3):
            now = session.stored()["m/w"]
            now[:, :2] = 0.25
            assign("m/w", now)
            session.run("train")
            for name, value in held.items():
                now = session.stored()[name]
                now[:, :2] = value[:, :2]
                assign(name, now)
        expected = session.stored()
        now = expected["m/w"].copy()
        now[:, :2] = 0.25
        assign("m/w", now)
        assert session.run("y:0").tobytes() == output.tobytes()
    assert {name: value.tobytes() for name, value in found.items()} == {n: v.tobytes() for n, v in expected.items()}


@KINDS
def test_savers_keep_seeing_what_is_stored(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "m/w := 7.0", checks="static")
    with Session(tmp_path / "out" / "saved_model") as session:
        stored = session.stored()["m/w"]
        assert not (stored == 7.0).any()
        own = session.run_saver(tmp_path / "own")
        new = session.save(tmp_path / "new")
    for prefix in (own, new):
        assert tf.train.load_checkpoint(prefix).get_tensor("m/w").tobytes() == stored.tobytes()


@KINDS
def test_the_loader_of_tensorflow_2(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "out", "m/w[:, 0:2]", "m/e[0]", checks="static")
    batch = {name: tf.constant(value) for name, value in BATCH.items()}
    expected = tf.saved_model.load(str(model)).signatures["serving_default"](**batch)["y"]
    loaded = tf.saved_model.load(str(tmp_path / "out" / "saved_model"))
    with tf.GradientTape() as tape:
        y = loaded.signatures["serving_default"](**batch)["y"]
        loss = tf.reduce_sum(tf.square(y))
    assert y.numpy().tobytes() == expected.numpy().tobytes()
    if resource:
        variables = {v.name: v for v in loaded.variables}
        gradient = tf.convert_to_tensor(tape.gradient(loss, variables["m/w:0"])).numpy()
        assert not gradient[:, :2].any()
        assert gradient[:, 2:].all()


@KINDS
def test_fold_and_rewrite_again(tmp_path: Path, resource: bool) -> None:
    model = save_model(tmp_path / "model", resource=resource)
    rewrite(model, tmp_path / "first", "m/w[:, 0] := 2.0", checks="static")
    again = rewrite(tmp_path / "first" / "saved_model", tmp_path / "out", "m/w[:, 1]", checks="static")
    assert again["frozen_before"] == 4
    with Session(tmp_path / "out" / "saved_model") as session:
        for _ in range(5):
            session.run("train")
        trained, expected = session.stored(), session.run("y:0")
        prefix = session.save(tmp_path / "trained")
    graphfreeze.fold(tmp_path / "out", tmp_path / "folded", state=prefix)
    original = (model / "saved_model.pb").read_bytes()
    assert (tmp_path / "folded" / "saved_model.pb").read_bytes() == original
    with Session(tmp_path / "folded") as session:
        assert session.run("y:0").tobytes() == expected.tobytes()
        folded = session.stored()
    assert (folded["m/w"][:, 0] == 2.0).all()
    assert folded["m/e"].tobytes() == trained["m/e"].tobytes()


def test_a_training_step_on_onnxruntime(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", resource=True)
    selections = [Selection("freeze", "m/w[:, 0:2]"), Selection("freeze", "m/e[[1, 2]]")]
    report = graphfreeze.rewrite(model, tmp_path / "out", selections, loss="mse", optimizer="adam", checks="static")
    assert report["training"]["endpoint"] == "serving_default"
    assert graphfreeze.validate(tmp_path / "out", device="cpu")["passed"]
    reference = save_model(tmp_path / "reference", resource=False)
    with pytest.raises(UnsupportedError, match=r"the reference variable 'm/b' .* --no-onnx"):
        graphfreeze.rewrite(reference, tmp_path / "refused", selections, loss="mse")
    assert not (tmp_path / "refused").exists()


def test_refusals(tmp_path: Path) -> None:
    def taken(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w = inputs(), variable("w", [4, 3], False)
        y = tf.identity(x @ w, "y")
        minimize(y, "sgd")
        graph = v1.get_default_graph()
        (update,) = [op for op in graph.get_operations() if op.type == "ApplyGradientDescent"]
        return {"x": x}, {"y": y, "updated": tf.identity(update.outputs[0])}

    def either(resource: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        x, w, u = inputs(), variable("w", [4, 3], False), variable("u", [4, 3], False)
        one = tf.raw_ops.RefSelect(index=0, inputs=[w._ref(), u._ref()])
        return {"x": x}, {"y": tf.identity(x @ one, "y")}

    for graph, message in ((taken, "its output is taken before"), (either, "taken by RefSelect")):
        model = build(graph, tmp_path / graph.__name__)
        with pytest.raises(UnsupportedVariableUseError, match=message):
            rewrite(model, tmp_path / "out", "w")
    model = save_model(tmp_path / "model", resource=True)
    with pytest.raises(UnsupportedError, match="cannot be limited"):
        rewrite(model, tmp_path / "out", "m/w", only_in=["serving_default"])
    assert not (tmp_path / "out").exists()
