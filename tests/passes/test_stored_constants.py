"""Masks and frozen values in the checkpoint: the same model for both loaders, and nothing large in the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.storage import Storage, stored_paths
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan

from .harness import Array, call_all, gradients, loaded_variable, make_plan, run_session
from .models import MODELS

Saved = Callable[[str], Path]

EVERYTHING = Storage(total=0, each=0)


def rewrite(source: Path, target: Path, plan: FreezePlan, storage: Storage) -> None:
    write(freeze_reads(SavedModel.load(source), plan, storage=storage), target)


def constant_bytes(directory: Path) -> int:
    """How much the largest tensor in a graph takes."""
    graph = SavedModel.load(directory).meta_graph.graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return max(
        (len(node.attr["value"].tensor.tensor_content) for node in nodes if "graphfreeze/" in node.name), default=0
    )


def same_bits(found: Any, expected: Any) -> bool:
    if isinstance(expected, tf.IndexedSlices):
        return isinstance(found, tf.IndexedSlices) and same_bits(
            tf.convert_to_tensor(found), tf.convert_to_tensor(expected)
        )
    return (found is None) == (expected is None) and (
        expected is None or found.numpy().tobytes() == expected.numpy().tobytes()
    )


@pytest.mark.parametrize(("name", "form"), [*((name, "blend") for name in MODELS), ("gathers", "select")])
def test_the_same_as_in_the_graph(saved: Saved, tmp_path: Path, name: str, form: Form) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    plan = make_plan(model, sample.targets, form)
    rewrite(saved(name), tmp_path / "in_graph", plan, Storage())
    rewrite(saved(name), tmp_path / "stored", plan, EVERYTHING)
    assert constant_bytes(tmp_path / "stored") < 8 < constant_bytes(tmp_path / "in_graph")

    one, other = (tf.saved_model.load(str(tmp_path / d)) for d in ("in_graph", "stored"))
    expected, found = call_all(one, sample), call_all(other, sample)
    for key in expected:
        assert found[key].tobytes() == expected[key].tobytes(), key
    paths = tuple(v.variable.object_path for v in plan.variables)
    expected_gradients, found_gradients = gradients(one, sample, paths), gradients(other, sample, paths)
    for endpoint in expected_gradients:
        for a, b in zip(found_gradients[endpoint], expected_gradients[endpoint], strict=True):
            assert same_bits(a, b), endpoint
    expected, found = run_session(tmp_path / "in_graph", sample), run_session(tmp_path / "stored", sample)
    for key in expected:
        assert found[key].tobytes() == expected[key].tobytes(), key


@pytest.mark.parametrize("name", MODELS)
def test_a_session_saves_them_too(saved: Saved, tmp_path: Path, name: str) -> None:
    sample = MODELS[name]
    plan = make_plan(SavedModel.load(saved(name)), sample.targets, "select")
    rewrite(saved(name), tmp_path / "stored", plan, EVERYTHING)
    expected = run_session(tmp_path / "stored", sample)
    expected_calls = call_all(tf.saved_model.load(str(tmp_path / "stored")), sample)
    prefix = str(tmp_path / "ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "stored"))
        saver = meta_graph.saver_def
        session.run(saver.save_tensor_name, {saver.filename_tensor_name: prefix})
    before = tf.train.load_checkpoint(str(tmp_path / "stored" / "variables" / "variables"))
    after = tf.train.load_checkpoint(prefix)
    assert after.get_variable_to_shape_map() == before.get_variable_to_shape_map()
    for key in set(before.get_variable_to_shape_map()) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}:
        assert before.get_tensor(key).tobytes() == after.get_tensor(key).tobytes(), key
    assert sorted(f.name for f in tmp_path.glob("ckpt*")) == [
        "ckpt.data-00000-of-00002",
        "ckpt.data-00001-of-00002",
        "ckpt.index",
    ]
    for file in (tmp_path / "stored" / "variables").iterdir():
        file.unlink()
    for file in tmp_path.glob("ckpt*"):
        file.rename(tmp_path / "stored" / "variables" / file.name.replace("ckpt", "variables"))
    found = run_session(tmp_path / "stored", sample)
    for key in expected:
        assert found[key].tobytes() == expected[key].tobytes(), key
    # The object graph, which only this loader needs, was saved too.
    found = call_all(tf.saved_model.load(str(tmp_path / "stored")), sample)
    for key in expected_calls:
        assert found[key].tobytes() == expected_calls[key].tobytes(), key


def test_saved_again_by_tensorflow(saved: Saved, tmp_path: Path) -> None:
    sample = MODELS["control_flow"]
    plan = make_plan(SavedModel.load(saved("control_flow")), sample.targets, "blend")
    rewrite(saved("control_flow"), tmp_path / "stored", plan, EVERYTHING)
    loaded = tf.saved_model.load(str(tmp_path / "stored"))
    expected = call_all(loaded, sample)
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=loaded.signatures)
    again = tf.saved_model.load(str(tmp_path / "again"))
    found = call_all(again, sample)
    for key in expected:
        assert found[key].tobytes() == expected[key].tobytes(), key


def test_training_moves_only_what_trains(saved: Saved, tmp_path: Path) -> None:
    sample = MODELS["dense"]
    model = SavedModel.load(saved("dense"))
    plan = make_plan(model, sample.targets, "select")
    rewrite(saved("dense"), tmp_path / "stored", plan, EVERYTHING)
    loaded = tf.saved_model.load(str(tmp_path / "stored"))
    original = tf.saved_model.load(str(saved("dense")))
    assert len(loaded.trainable_variables) == len(original.trainable_variables)
    for entry in plan.variables:
        path = entry.variable.object_path
        (gradient,) = next(iter(gradients(loaded, sample, (path,), list(sample.calls)[:1]).values()))
        assert not np.any(gradient.numpy()[~entry.full_mask])
        assert np.any(gradient.numpy()[entry.full_mask])
        assert loaded_variable(loaded, path).shape == entry.variable.shape


def test_old_shards_stay_and_current_values_need_no_copy(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    plan = make_plan(model, MODELS["dense"].targets, "select")
    current = FreezePlan(
        tuple(type(v)(v.variable, v.mask, model.read(v.variable) * ~v.full_mask, "select") for v in plan.variables)
    )
    for name, chosen in (("other", plan), ("current", current)):
        rewrite(saved("dense"), tmp_path / name, chosen, EVERYTHING)
        shards = sorted((tmp_path / name / "variables").glob("*data*"))
        old = (saved("dense") / "variables" / "variables.data-00000-of-00001").read_bytes()
        assert shards[0].read_bytes() == old
    sizes = {
        n: sum(f.stat().st_size for f in (tmp_path / n / "variables").glob("*data*")) for n in ("other", "current")
    }
    # Where nothing is frozen, any value will do.
    assert sizes["other"] - sizes["current"] == sum(v.elements * 4 for v in plan.variables if v.frozen_elements) > 0
    reader = tf.train.load_checkpoint(str(tmp_path / "current" / "variables" / "variables"))
    frozen = [key for key in reader.get_variable_to_shape_map() if "graphfreeze/frozen" in key]
    assert len(frozen) == len(plan.variables)
    values: list[Array] = [reader.get_tensor(key) for key in frozen]
    assert all(any(v.tobytes() == model.read(e.variable).tobytes() for v in values) for e in plan.variables)


def test_only_large_variables_of_large_plans_are_stored(saved: Saved) -> None:
    plan = make_plan(SavedModel.load(saved("dense")), MODELS["dense"].targets, "select")
    sizes = {v.variable.object_path: v.elements * 4 for v in plan.variables}
    assert stored_paths(plan, Storage()) == frozenset()
    assert stored_paths(plan, Storage(total=sum(sizes.values()), each=0)) == frozenset()
    largest = max(sizes.values())
    stored = stored_paths(plan, Storage(total=sum(sizes.values()) - 1, each=largest - 1))
    assert stored == {path for path, size in sizes.items() if size == largest}
