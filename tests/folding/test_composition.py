"""Rewriting a rewritten model: the union is frozen, nothing stacks, and the original graph comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, load_plan, save_plan

from .conftest import Rewritten

KERNEL = "net/hidden/kernel"


def freeze(source: Path, out: Path, *selectors: str, **options: Any) -> dict[str, Any]:
    selections = [graphfreeze.Selection("freeze", text) for text in selectors]
    report: dict[str, Any] = graphfreeze.rewrite(source, out, selections, onnx=False, **options)
    return report


def entry(plan: FreezePlan, name: str) -> Any:
    return next(v for v in plan.variables if v.variable.name == name)


@pytest.fixture(scope="module")
def once(rewritten: Rewritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("once") / "out"
    freeze(rewritten.original, out, f"{KERNEL}[:, 0] := 0.5", "net/bn/gamma", checks="static")
    return out


@pytest.fixture(scope="module")
def twice(once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twice") / "out"
    report = freeze(once / "saved_model", out, f"{KERNEL}[0] := -2", f"{KERNEL} where w == 0.5 := 9", "net/out/bias")
    assert report["frozen_before"] == 5 + 3
    # 5 of the first column before, and now the 2 others of the first row.
    assert {v["name"]: v["frozen_elements"] for v in report["variables"]} == {
        "net/bn/gamma": 3,
        KERNEL: 7,
        "net/out/bias": 4,
    }
    return out


def test_the_union_is_frozen_at_the_earlier_values(rewritten: Rewritten, once: Path, twice: Path) -> None:
    kernel = entry(load_plan(twice / "plan"), KERNEL)
    frozen = ~kernel.full_mask
    expected = np.zeros((5, 3), bool)
    expected[:, 0] = expected[0] = True
    np.testing.assert_array_equal(frozen, expected)
    assert kernel.value[:, 0].tolist() == [0.5] * 5
    assert kernel.value[0, 1:].tolist() == [-2, -2]


def test_nothing_stacks(rewritten: Rewritten, once: Path, twice: Path, tmp_path: Path) -> None:
    """Rewriting the original with the union at once gives the same bytes."""
    plan = load_plan(twice / "plan")
    from graphfreeze.passes.freeze_reads import freeze_reads
    from graphfreeze.passes.write import write

    write(freeze_reads(SavedModel.load(rewritten.original), plan), tmp_path / "direct")
    assert (tmp_path / "direct" / "saved_model.pb").read_bytes() == (
        twice / "saved_model" / "saved_model.pb"
    ).read_bytes()
    original = (rewritten.original / "saved_model.pb").read_bytes()
    assert (twice / "plan" / "original_saved_model.pb").read_bytes() == original


def test_it_verifies_against_both(rewritten: Rewritten, once: Path, twice: Path) -> None:
    evidence = graphfreeze.verify(once / "saved_model", twice)["checks"][0]["evidence"]
    assert evidence["earlier"] == {"frozen_elements": 8}
    assert graphfreeze.verify(rewritten.original, twice)["checks"][0]["evidence"]["earlier"] is None


def test_training_in_between_does_not_thaw(once: Path, tmp_path: Path) -> None:
    """The storage of frozen elements may have moved; they stay at the values that they were frozen at."""
    shutil.copytree(once / "saved_model", tmp_path / "trained")
    loaded = tf.saved_model.load(str(once / "saved_model"))
    for variable in loaded.variables:
        variable.assign(variable + 1)
    # It would tell the old checkpoint from the new one.
    (tmp_path / "trained" / "fingerprint.pb").unlink()
    tf.saved_model.save(loaded, str(tmp_path / "again"))
    shutil.copytree(tmp_path / "again" / "variables", tmp_path / "trained" / "variables", dirs_exist_ok=True)
    freeze(tmp_path / "trained", tmp_path / "out", "net/bn/gamma", f"{KERNEL}[0]", checks="full")
    plan = load_plan(tmp_path / "out" / "plan")
    assert entry(plan, "net/bn/gamma").value.tolist() == [1, 1, 1]
    moved = next(v for v in loaded.variables if v.shape == (5, 3)).numpy()
    assert entry(plan, KERNEL).value[:, 0].tolist() == [0.5] * 5
    assert entry(plan, KERNEL).value[0, 1:].tolist() == moved[0, 1:].tolist()


def test_folding_restores_the_plain_graph(rewritten: Rewritten, twice: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(twice / "saved_model"))
    expected = loaded.serve(rewritten.x).numpy()
    state = tf.train.Checkpoint(loaded).write(str(tmp_path / "ckpt"))
    graphfreeze.fold(twice, tmp_path / "deploy", state=state)
    original = (rewritten.original / "saved_model.pb").read_bytes()
    assert (tmp_path / "deploy" / "saved_model.pb").read_bytes() == original
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    assert folded.serve(rewritten.x).numpy().tobytes() == expected.tobytes()
    assert not (tmp_path / "deploy" / "assets.extra" / "graphfreeze").exists()


def test_the_strongest_form_wins(rewritten: Rewritten, tmp_path: Path) -> None:
    freeze(rewritten.original, tmp_path / "a", f"{KERNEL}[0]", form="select", checks="none")
    freeze(
        tmp_path / "a" / "saved_model", tmp_path / "b", f"{KERNEL}[1]", "net/out/bias", form="blend", checks="static"
    )
    assert {v.variable.name: v.form for v in load_plan(tmp_path / "b" / "plan").variables} == {
        KERNEL: "select",
        "net/out/bias": "blend",
    }


def test_a_model_saved_again_is_refused(once: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(once / "saved_model"))
    tf.saved_model.save(loaded, str(tmp_path / "again"))
    with pytest.raises(graphfreeze.UnsupportedError, match="masked reads of an earlier rewrite"):
        freeze(tmp_path / "again", tmp_path / "out", "net/out/bias")


@pytest.mark.parametrize("damage", ["thaw", "value", "drop", "other graph", "plan of another"])
def test_the_prover_notices(rewritten: Rewritten, once: Path, twice: Path, tmp_path: Path, damage: str) -> None:
    """What is wrong with the second rewrite's plan, or with what the first one notes, is found."""
    shutil.copytree(once / "saved_model", tmp_path / "once")
    notes = tmp_path / "once" / "assets.extra" / "graphfreeze"
    plan = load_plan(notes)
    if damage == "other graph":
        # The notes say that the masked graph is the original.
        shutil.copy(tmp_path / "once" / "saved_model.pb", notes / "original_saved_model.pb")
    else:
        kernel = entry(plan, KERNEL)
        rest = tuple(v for v in plan.variables if v is not kernel)
        mask = kernel.full_mask.copy()
        value = kernel.value.copy()
        if damage == "thaw":
            mask[3, 2] = False
        elif damage == "value":
            value[2, 0] = 0.25
        elif damage == "plan of another":
            rest = ()
        changed = () if damage == "drop" else (type(kernel)(kernel.variable, mask, value, kernel.form),)
        save_plan(FreezePlan((*rest, *changed)), notes)
    with pytest.raises(graphfreeze.VerificationError):
        graphfreeze.verify(tmp_path / "once", twice)


def test_a_plan_that_lost_elements_is_found(rewritten: Rewritten, once: Path, tmp_path: Path) -> None:
    """A rewrite that forgot the earlier plan is consistent in itself, and yet not what was asked for."""
    freeze(rewritten.original, tmp_path / "forgetful", f"{KERNEL}[0]", "net/bn/gamma", checks="static")
    with pytest.raises(graphfreeze.VerificationError, match="every element that the earlier plan froze"):
        graphfreeze.verify(once / "saved_model", tmp_path / "forgetful")
    assert json.loads((tmp_path / "forgetful" / "report.json").read_text())["frozen_before"] == 0


@pytest.mark.parametrize("name", ["plan.json", "masks.safetensors", "original_saved_model.pb", "another"])
def test_the_plan_that_a_model_carries_is_the_proven_one(
    rewritten: Rewritten, once: Path, tmp_path: Path, name: str
) -> None:
    """The model that stands alone is rewritten again by that copy."""
    shutil.copytree(once, tmp_path / "out")
    carried = tmp_path / "out" / "saved_model" / "assets.extra" / "graphfreeze" / name
    content = carried.read_bytes() if carried.is_file() else b" "
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-1], None):
        carried.unlink(missing_ok=True)
        if damaged is not None:
            carried.write_bytes(damaged)
        elif name == "another":
            continue
        with pytest.raises(graphfreeze.VerificationError, match=rf"graphfreeze/{name} to be the same as"):
            graphfreeze.verify(rewritten.original, tmp_path / "out")
