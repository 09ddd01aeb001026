"""Masks in their smallest shapes, every dtype, and values that are easily lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedDtypeError, UnsupportedError, UsageError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.size_budget import SizeBudget
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan

from .harness import call_all, frozen, gradients, loaded_variable, make_plan, merge
from .models import MODELS

Saved = Callable[[str], Path]

MASKS = {
    "all": np.zeros((1, 1), bool),
    "none": np.ones((1, 1), bool),
    "rows": (np.arange(10) % 3 == 0)[:, None],
    "columns": np.array([[True, False, True]]),
    "elements": np.arange(30).reshape(10, 3) % 7 > 2,
}


@pytest.mark.parametrize("form", ["blend", "select"])
@pytest.mark.parametrize("shape", MASKS)
def test_broadcast_masks(saved: Saved, tmp_path: Path, shape: str, form: Form) -> None:
    sample = dataclasses.replace(MODELS["gathers"], signatures={})
    model = SavedModel.load(saved("gathers"))
    mask = MASKS[shape]
    values = np.random.default_rng(5).normal(size=(10, 3)).astype(np.float32)
    table = frozen(model, "table", mask, values, form)
    batched = frozen(model, "batched", mask[None], np.stack([values, 2 * values]), form)
    write(freeze_reads(model, FreezePlan((table, batched))), tmp_path / "out")
    original, rewritten = tf.saved_model.load(str(saved("gathers"))), tf.saved_model.load(str(tmp_path / "out"))
    merge(original, FreezePlan((table, batched)))
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key
    paths = (table.variable.object_path, batched.variable.object_path)
    endpoints = ("rows", "batches", "elements")
    before, after = (gradients(loaded, sample, paths, endpoints) for loaded in (original, rewritten))
    for endpoint in before:
        for entry, b, a in zip((table, batched), before[endpoint], after[endpoint], strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                a, b = tf.convert_to_tensor(a).numpy(), tf.convert_to_tensor(b).numpy()
                assert np.array_equal(a, np.where(entry.full_mask, b, 0)), endpoint


class Holder(tf.Module):
    """One variable, read as it is."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.v = tf.Variable(value, name="v")

    @tf.function(input_signature=[])
    def read(self) -> Any:
        return tf.identity(self.v)


def round_trip(tmp_path: Path, value: Any, mask: np.ndarray[Any, Any], values: Any, form: Form) -> Any:
    """What a rewritten model reads of a variable."""
    tf.saved_model.save(Holder(value), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    (variable,) = model.variables
    assert variable.dtype == value.dtype.name
    assert model.read(variable).tobytes() == value.tobytes()
    write(freeze_reads(model, FreezePlan((frozen(model, "v", mask, values, form),))), tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    return loaded.read().numpy()


FLOATING = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
OTHERS: list[Any] = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
OTHERS += [np.complex64, np.complex128, np.bool_]
DTYPES = [(d, "blend") for d in FLOATING] + [(d, "select") for d in FLOATING + OTHERS]


@pytest.mark.parametrize(("dtype", "form"), DTYPES)
def test_dtypes(tmp_path: Path, dtype: Any, form: Form) -> None:
    value = np.arange(6).reshape(2, 3).astype(dtype)
    values = np.array([[1, 0, 1], [0, 1, 0]]).astype(dtype)
    mask = np.array([[True, False, True], [False, True, False]])
    assert round_trip(tmp_path, value, mask, values, form).tobytes() == np.where(mask, value, values).tobytes()


@pytest.mark.parametrize("form", ["blend", "select"])
def test_scalar_variable(tmp_path: Path, form: Form) -> None:
    value, values = np.array(3.0, np.float32), np.array(4.0, np.float32)
    assert round_trip(tmp_path, value, np.array(False), values, form) == 4.0


def test_blend_keeps_negative_zero_where_trainable(tmp_path: Path) -> None:
    value = np.array([-0.0, 0.0, -0.0, 1.0], np.float32)
    mask = np.array([True, True, False, False])
    result = round_trip(tmp_path, value, mask, np.array([0, 0, 2, 0], np.float32), "blend")
    assert result.tobytes() == np.array([-0.0, 0.0, 2.0, 0.0], np.float32).tobytes()


def test_select_is_exact_for_every_value(tmp_path: Path) -> None:
    odd = np.array([-0.0, 1e-40, np.inf, -np.inf, np.nan, 0.0], np.float32)
    mask = np.array([True, False] * 3)
    result = round_trip(tmp_path, odd, mask, odd[::-1].copy(), "select")
    assert result.tobytes() == np.where(mask, odd, odd[::-1]).tobytes()


def test_dtypes_without_a_masked_read_are_refused(tmp_path: Path) -> None:
    tf.saved_model.save(Holder(np.array([1, 2], np.int32)), str(tmp_path / "numbers"))
    model = SavedModel.load(tmp_path / "numbers")
    entry = frozen(model, "v", np.array([True, False]), np.array([0, 5], np.int32), "blend")
    with pytest.raises(UnsupportedDtypeError, match=r"v \(v\) has dtype int32.* form blend"):
        freeze_reads(model, FreezePlan((entry,)))
    tf.saved_model.save(Holder(np.array(["a", "b"], object)), str(tmp_path / "text"))
    model = SavedModel.load(tmp_path / "text")
    assert model.read(model.variables[0]).tolist() == [b"a", b"b"]
    entry = frozen(model, "v", np.array([True, False]), np.array([0, 5], np.int32), "select")
    with pytest.raises(UnsupportedDtypeError, match="dtype string"):
        freeze_reads(model, FreezePlan((entry,)))


def test_plans_of_other_models_are_refused(saved: Saved) -> None:
    dense, gathers = SavedModel.load(saved("dense")), SavedModel.load(saved("gathers"))
    with pytest.raises(UsageError, match="no variable at object path 'table'"):
        freeze_reads(dense, make_plan(gathers, ("table",), "blend"))
    entry = make_plan(gathers, ("table",), "blend").variables[0]
    wrong = type(entry)(entry.variable, entry.mask[:5], entry.value, "blend")
    with pytest.raises(UsageError, match=r"has shape \(10, 3\), but its mask has \(5, 3\)"):
        freeze_reads(gathers, FreezePlan((wrong,)))


def test_graphs_that_protobuf_cannot_hold_are_refused() -> None:
    budget = SizeBudget(used=2**31 - 101)
    budget.take(100)
    with pytest.raises(UnsupportedError, match="larger than 2147483647 bytes"):
        budget.take(1)


def test_constants_are_shared_within_a_function(saved: Saved) -> None:
    model = SavedModel.load(saved("gathers"))
    plan = make_plan(model, ("table",), "blend")
    proto = freeze_reads(model, plan).proto
    for function in proto.meta_graphs[0].graph_def.library.function:
        masks = [n.name for n in function.node_def if n.op == "Const" and n.name.startswith("graphfreeze/table/mask")]
        assert len(masks) <= 1, function.signature.name


def test_nan_steps_do_not_reach_frozen_elements_of_a_select(tmp_path: Path) -> None:
    tf.saved_model.save(Holder(np.array([1, 2], np.float32)), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    entry = frozen(model, "v", np.array([True, False]), np.array([0, 5], np.float32), "select")
    write(freeze_reads(model, FreezePlan((entry,))), tmp_path / "out")
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.read() * np.nan)
    gradient = tape.gradient(loss, loaded_variable(loaded, "v"))
    assert np.isnan(gradient[0]) and gradient[1] == 0
    loaded.v.assign([np.nan, np.nan])
    assert loaded.read()[1] == 5
