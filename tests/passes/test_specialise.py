"""Functions are cloned only where contexts disagree, and what is not targeted stays as it was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow as tf

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import call_all, make_plan, merge
from .models import MODELS

Saved = Callable[[str], Path]


def added_functions(saved: Saved, name: str, targets: tuple[str, ...]) -> set[str]:
    """The functions that the rewritten model has more."""
    model = SavedModel.load(saved(name))
    proto = freeze_reads(model, make_plan(model, targets, "blend")).proto
    names = [f.signature.name for f in proto.meta_graphs[0].graph_def.library.function]
    assert names[: len(model.functions)] == list(model.functions)
    return set(names[len(model.functions) :])


def test_functions_without_conflict_are_not_cloned(saved: Saved) -> None:
    assert added_functions(saved, "dense", MODELS["dense"].targets) == set()
    assert added_functions(saved, "lstm", MODELS["lstm"].targets) == set()
    assert added_functions(saved, "gathers", MODELS["gathers"].targets) == set()


def test_a_function_is_cloned_per_context(saved: Saved) -> None:
    # `linear` runs with a, with b, and with c, which is not targeted and keeps the original.
    clones = added_functions(saved, "control_flow", ("a", "b"))
    assert {name.rsplit("_graphfreeze_", 1)[0].rsplit("_", 1)[0] for name in clones} == {"__inference_linear"}
    assert len(clones) == 2
    assert len(added_functions(saved, "control_flow", ("a",))) == 1


@pytest.mark.parametrize("targets", [("a",), ("c",), ("a", "b", "c")])
def test_only_targets_change(saved: Saved, tmp_path: Path, targets: tuple[str, ...]) -> None:
    sample = dataclasses.replace(MODELS["control_flow"], signatures={})
    model = SavedModel.load(saved("control_flow"))
    plan = make_plan(model, targets, "select")
    write(freeze_reads(model, plan), tmp_path / "out")
    original, rewritten = tf.saved_model.load(str(saved("control_flow"))), tf.saved_model.load(str(tmp_path / "out"))
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key


def test_an_empty_plan_changes_nothing(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("control_flow"))
    rewritten = freeze_reads(model, FreezePlan())
    assert rewritten.reads == ()
    write(rewritten, tmp_path / "out")
    assert (tmp_path / "out" / "saved_model.pb").read_bytes() == (saved("control_flow") / "saved_model.pb").read_bytes()


def test_the_original_value_is_not_changed(saved: Saved) -> None:
    model = SavedModel.load(saved("control_flow"))
    before = model.proto.SerializeToString(deterministic=True)
    freeze_reads(model, make_plan(model, ("a", "b"), "blend"))
    assert model.proto.SerializeToString(deterministic=True) == before


def test_reads_tell_where_they_are(saved: Saved) -> None:
    model = SavedModel.load(saved("lstm"))
    rewritten = freeze_reads(model, make_plan(model, MODELS["lstm"].targets, "blend"))
    found = {(read.name, read.operation) for read in rewritten.reads}
    assert found == {
        ("net/embedding/embeddings", "GatherV2"),
        ("net/lstm/lstm_cell/kernel", "ReadVariableOp"),
        ("net/lstm/lstm_cell/recurrent_kernel", "ReadVariableOp"),
    }
    assert {read.endpoints for read in rewritten.reads} == {
        ("function serve", "signature serve", "signature serving_default")
    }
    functions = {f.signature.name: f for f in rewritten.proto.meta_graphs[0].graph_def.library.function}
    for read in rewritten.reads:
        assert read.node in {node.name for node in functions[read.function].node_def}


def test_a_rewritten_model_can_be_rewritten(saved: Saved, tmp_path: Path) -> None:
    sample = MODELS["control_flow"]
    plan = make_plan(SavedModel.load(saved("control_flow")), ("a", "b"), "blend")
    second = make_plan(SavedModel.load(saved("control_flow")), ("b", "c"), "select", seed=1)
    write(freeze_reads(SavedModel.load(saved("control_flow")), plan), tmp_path / "once")
    write(freeze_reads(SavedModel.load(tmp_path / "once"), second), tmp_path / "twice")
    original, rewritten = tf.saved_model.load(str(saved("control_flow"))), tf.saved_model.load(str(tmp_path / "twice"))
    # The second rewrite masks what the first one's masked read takes.
    merge(original, second)
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key
