"""Folding gives the original graph with the effective values of the trained, rewritten model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import DataError, OutputError
from graphfreeze.passes.fold import fold
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel

from .harness import Array, call_all, loaded_variable, make_plan, run_session
from .models import MODELS

Saved = Callable[[str], Path]


def move_all(loaded: tf.Module, model: SavedModel) -> dict[str, Array]:
    """Move every floating-point variable, frozen elements too, as weight decay would; returns the new values."""
    trained = {}
    for i, variable in enumerate(v for v in model.variables if v.dtype == "float32"):
        target = loaded_variable(loaded, variable.object_path)
        target.assign(target * 0.75 + 0.01 * i)
        trained[variable.object_path] = target.numpy()
    return trained


@pytest.mark.parametrize("name", MODELS)
def test_folded_equals_trained(saved: Saved, tmp_path: Path, name: str) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    plan = make_plan(model, sample.targets, "blend")
    write(freeze_reads(model, plan), tmp_path / "out")
    rewritten = tf.saved_model.load(str(tmp_path / "out"))
    trained = move_all(rewritten, model)
    original = (saved(name) / "saved_model.pb").read_bytes()
    fold(original, tmp_path / "out", plan, trained, tmp_path / "folded")

    assert (tmp_path / "folded" / "saved_model.pb").read_bytes() == original
    expected, found = call_all(rewritten, sample), call_all(tf.saved_model.load(str(tmp_path / "folded")), sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key

    # A session of the rewritten model that is given the trained values computes the same as one of the folded.
    unfrozen = make_plan(model, (), "blend")
    fold(tmp_path / "out" / "saved_model.pb", tmp_path / "out", unfrozen, trained, tmp_path / "trained")
    expected, found = run_session(tmp_path / "trained", sample), run_session(tmp_path / "folded", sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key


def test_values_that_were_not_trained_are_kept(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    plan = make_plan(model, ("net/hidden/kernel",), "blend")
    write(freeze_reads(model, plan), tmp_path / "out")
    fold(saved("dense") / "saved_model.pb", tmp_path / "out", plan, {}, tmp_path / "folded")
    folded = SavedModel.load(tmp_path / "folded")
    for variable in model.variables:
        entry = plan.find(variable.object_path)
        expected = model.read(variable)
        if entry is not None:
            expected = np.where(entry.full_mask, expected, entry.value)
        assert folded.read(variable).tobytes() == expected.tobytes(), variable.name


def test_two_folds_give_the_same_bytes(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    plan = make_plan(model, MODELS["dense"].targets, "blend")
    write(freeze_reads(model, plan), tmp_path / "out")
    for target in ("first", "second"):
        fold(saved("dense") / "saved_model.pb", tmp_path / "out", plan, {}, tmp_path / target)
    files = sorted(f.relative_to(tmp_path / "first") for f in (tmp_path / "first").rglob("*") if f.is_file())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes(), file


def test_bad_trained_values_are_refused(saved: Saved, tmp_path: Path) -> None:
    model = SavedModel.load(saved("dense"))
    plan = make_plan(model, ("net/hidden/kernel",), "blend")
    path = plan.variables[0].variable.object_path
    original = saved("dense") / "saved_model.pb"

    def attempt(trained: dict[str, Array]) -> None:
        fold(original, saved("dense"), plan, trained, tmp_path / "folded")

    with pytest.raises(DataError, match="no variable at object path 'variables/99'"):
        attempt({"variables/99": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"has shape \(3, 4\)"):
        attempt({path: np.zeros((3, 4), np.float32)})
    with pytest.raises(DataError, match="dtype float64"):
        attempt({path: np.zeros((4, 3))})
    assert not (tmp_path / "folded").exists()
    (tmp_path / "folded").mkdir()
    (tmp_path / "folded" / "file").touch()
    with pytest.raises(OutputError, match="not empty"):
        attempt({})
