"""What is too large to be kept is resolved and read when it is needed, with the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from graphfreeze.selection import Selection, load_plan, plan_files, resolve, resolve_plan, save_plan
from graphfreeze.selection.plan import FreezePlan, FrozenVariable, LazyFrozenVariable
from graphfreeze.selection.tensor_stream import Pending, write_tensors
from graphfreeze.selection.variable import numpy_dtype

from .table_source import TableSource

DTYPES = ("float32", "bfloat16", "complex64", "int8", "float64")

SELECTIONS = [
    Selection("freeze", "float32[:, 1]"),
    Selection("freeze", "float64 where abs(w) > 1 := 2"),
    Selection("freeze", "float64[0]"),
    Selection("freeze", "bfloat16"),
    Selection("train", "bfloat16[2]"),
    Selection("freeze", "complex64[1:3]"),
    Selection("freeze", "int8 := 3"),
]


@pytest.fixture
def source() -> TableSource:
    rng = np.random.default_rng(0)
    return TableSource({name: rng.normal(size=(5, 7)).astype(numpy_dtype(name)) for name in DTYPES})


def assert_same(found: FreezePlan, expected: FreezePlan) -> None:
    assert [v.variable for v in found.variables] == [v.variable for v in expected.variables]
    for a, b in zip(found.variables, expected.variables, strict=True):
        assert (a.form, a.selectors, a.frozen_elements, a.wholly_frozen) == (
            b.form,
            b.selectors,
            b.frozen_elements,
            b.wholly_frozen,
        )
        assert a.mask.tobytes() == b.mask.tobytes()
        assert a.mask.shape == b.mask.shape
        assert (a.value.dtype, a.value.shape) == (b.value.dtype, b.value.shape)
        assert a.value.tobytes() == b.value.tobytes()


def test_a_plan_is_the_same_kept_or_not(source: TableSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = resolve_plan(SELECTIONS, source)
    assert all(type(v) is FrozenVariable for v in kept.variables)
    monkeypatch.setattr(resolve, "_KEPT_BYTES", 0)
    monkeypatch.setattr(plan_files, "_KEPT_BYTES", 0)
    lazy = resolve_plan(SELECTIONS, source)
    assert all(type(v) is LazyFrozenVariable for v in lazy.variables)
    assert_same(lazy, kept)
    for name, plan in (("kept", kept), ("lazy", lazy)):
        (tmp_path / name).mkdir()
        save_plan(plan, tmp_path / name)
    for file in ("plan.json", "masks.safetensors"):
        assert (tmp_path / "lazy" / file).read_bytes() == (tmp_path / "kept" / file).read_bytes()
    loaded = load_plan(tmp_path / "kept")
    assert all(type(v) is LazyFrozenVariable for v in loaded.variables)
    assert_same(loaded, kept)


def test_the_values_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "_KEPT_BYTES", 8)
    source = TableSource({"x": np.ones((3, 4), np.float32)})
    plan = resolve_plan([Selection("freeze", "x[0]")], source)
    before = len(source.read_names)
    assert plan.variables[0].value is not plan.variables[0].value
    assert len(source.read_names) == before + 2


@pytest.mark.parametrize("order", [1, -1])
def test_the_stream_is_safetensors(tmp_path: Path, order: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "odd": rng.integers(0, 2, (3, 1)).astype(bool),
        "scalar": np.array(2.5),
        "a/transposed": rng.normal(size=(4, 3)).astype("f4").T,
        "empty": np.zeros((0, 2), np.int64),
        "ü": np.arange(3, dtype=np.uint16),
    }
    pending = {n: Pending(a.dtype, a.shape, lambda a=a: a) for n, a in list(arrays.items())[::order]}  # type: ignore[misc]
    write_tensors(tmp_path / "file", pending)
    found = load_file(tmp_path / "file")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
