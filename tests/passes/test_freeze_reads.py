"""The freeze pass against the original with the plan's values assigned: same bits, gradients zero where frozen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form

from .harness import call_all, gradients, loaded_variable, make_plan, merge
from .models import MODELS

Saved = Callable[[str], Path]
CASES = [(name, form) for name in MODELS for form in ("blend", "select")]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_outputs_and_gradients(saved: Saved, tmp_path: Path, name: str, form: Form) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    plan = make_plan(model, sample.targets, form)
    write(freeze_reads(model, plan), tmp_path / "out")
    original, rewritten = tf.saved_model.load(str(saved(name))), tf.saved_model.load(str(tmp_path / "out"))

    untouched = call_all(original, sample)
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    assert expected.keys() == found.keys()
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key
        assert expected[key].tobytes() != untouched[key].tobytes(), f"{key} does not depend on the plan"

    paths = tuple(v.object_path for v in model.variables if v.trainable)
    expected_gradients = gradients(original, sample, paths)
    for endpoint, found_gradients in gradients(rewritten, sample, paths).items():
        for path, before, after in zip(paths, expected_gradients[endpoint], found_gradients, strict=True):
            assert type(before) is type(after) or isinstance(before, tf.IndexedSlices), (endpoint, path)
            if after is None:
                continue
            entry = plan.find(path)
            before, after = tf.convert_to_tensor(before).numpy(), tf.convert_to_tensor(after).numpy()
            mask = np.ones(before.shape, bool) if entry is None else entry.full_mask
            assert np.array_equal(before[mask], after[mask]), (endpoint, path)
            assert not after[~mask].any(), (endpoint, path)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].sparse])
def test_sparse_gradients_stay_sparse(saved: Saved, tmp_path: Path, name: str) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    write(freeze_reads(model, make_plan(model, sample.targets, "blend")), tmp_path / "out")
    paths = tuple(v.object_path for v in model.variables if v.name in sample.targets)
    before = gradients(tf.saved_model.load(str(saved(name))), sample, paths)
    after = gradients(tf.saved_model.load(str(tmp_path / "out")), sample, paths)
    names = {v.object_path: v.name for v in model.variables}
    sparse = [(e, p) for e in before for p, g in zip(paths, before[e], strict=True) if isinstance(g, tf.IndexedSlices)]
    assert {names[path] for _, path in sparse} == set(sample.sparse)
    for endpoint, path in sparse:
        assert isinstance(after[endpoint][paths.index(path)], tf.IndexedSlices), (endpoint, path)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("form", ["blend", "select"])
@pytest.mark.parametrize("name", ["dense", "lstm", "gathers"])
def test_training_keeps_effective_values(saved: Saved, tmp_path: Path, name: str, form: Form, optimizer: str) -> None:
    sample = MODELS[name]
    model = SavedModel.load(saved(name))
    plan = make_plan(model, sample.targets, form)
    write(freeze_reads(model, plan), tmp_path / "out")
    rewritten = tf.saved_model.load(str(tmp_path / "out"))
    paths = tuple(v.object_path for v in model.variables if v.trainable)
    variables = [loaded_variable(rewritten, path) for path in paths]
    before = [v.numpy() for v in variables]
    first, second = [[np.zeros(v.shape, np.float32) for v in variables] for _ in range(2)]
    for step in range(1, 21):
        (gradient,) = gradients(rewritten, sample, paths, [next(iter(sample.calls))]).values()
        for i, (variable, g) in enumerate(zip(variables, gradient, strict=True)):
            g = np.zeros(variable.shape, np.float32) if g is None else tf.convert_to_tensor(g).numpy()
            if optimizer == "momentum":
                first[i] = 0.9 * first[i] + g
                variable.assign_sub(0.01 * first[i])
            else:
                first[i], second[i] = 0.9 * first[i] + 0.1 * g, 0.99 * second[i] + 0.01 * g * g
                unbiased = first[i] / (1 - 0.9**step) / (np.sqrt(second[i] / (1 - 0.99**step)) + 1e-7)
                variable.assign_sub(0.01 * (unbiased + 0.1 * variable.numpy()))

    original = tf.saved_model.load(str(saved(name)))
    for path, variable in zip(paths, variables, strict=True):
        loaded_variable(original, path).assign(variable)
    merge(original, plan)
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key
    assert any(not np.array_equal(b, v.numpy()) for b, v in zip(before, variables, strict=True))
