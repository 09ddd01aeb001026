from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfreeze.errors import SelectorError, UnsupportedDtypeError
from graphfreeze.selection import Selection, Variable, resolve_plan
from graphfreeze.selection.masks import smallest_broadcastable
from tests.selection.table_source import TableSource, frozen_positions, only, plan_of


def model() -> TableSource:
    kernel = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    kernel[1, 2] = 0
    return TableSource(
        {
            "dense/kernel": kernel,
            "dense/bias": np.ones(4, np.float32),
            "lstm/lstm_cell/kernel": np.ones((4, 8), np.float32),
            "bn/moving_mean": np.ones(4, np.float32),
            "seed_generator/state": np.array([1, 2], np.uint32),
            "twin#1": np.ones(2, np.float32),
            "twin#2": np.ones(2, np.float32),
            "steps": np.array(3, np.int64),
        },
        state=["bn/moving_mean", "seed_generator/state"],
    )


def names(*selections: str) -> list[str]:
    return [frozen.variable.name for frozen in plan_of(model(), *selections).variables]


def test_freezing_all_but_two_elements() -> None:
    plan = plan_of(TableSource({"x": np.ones((3, 3), np.float32)}), "freeze **", "train x[[0,1],[0,1]]")
    frozen = only(plan)
    assert np.argwhere(frozen.full_mask).tolist() == [[0, 0], [1, 1]]
    assert (frozen.elements, frozen.frozen_elements, frozen.wholly_frozen) == (9, 7, False)
    assert frozen.selectors == ("freeze **", "train x[[0,1],[0,1]]")


def test_later_selections_win() -> None:
    plan = plan_of(model(), "freeze dense/kernel", "train dense/kernel[0:2]", "freeze dense/kernel[1, 3]")
    frozen = only(plan)
    assert frozen_positions(frozen) == [(1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]
    assert frozen.value.tolist() == [[0, 0, 0, 0], [0, 0, 0, 8], [9, 10, 11, 12]]


def test_a_selection_can_be_taken_back() -> None:
    assert names("freeze **/kernel", "train lstm/**") == ["dense/kernel"]


def test_globs_pass_over_what_no_gradient_trains() -> None:
    assert names("freeze **") == ["dense/bias", "dense/kernel", "lstm/lstm_cell/kernel", "twin", "twin"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("dense/kernel:0", ["dense/kernel"]),
        ("**/kernel", ["dense/kernel", "lstm/lstm_cell/kernel"]),
        ("*/kernel", ["dense/kernel"]),
        ("bn/moving_mean", ["bn/moving_mean"]),
        ("steps", ["steps"]),
        ("object:variables/0", ["dense/kernel"]),
        ("object:variables/?", ["dense/bias", "dense/kernel", "lstm/lstm_cell/kernel", "twin", "twin"]),
        ("object:variables/6", ["twin"]),
    ],
)
def test_names_and_globs(pattern: str, expected: list[str]) -> None:
    assert names(f"freeze {pattern}") == expected


def test_only_values_that_are_needed_are_read() -> None:
    source = model()
    plan_of(source, "freeze dense/**", "train dense/bias")
    assert source.read_names == ["dense/kernel"]


@pytest.mark.parametrize(
    ("selections", "message"),
    [
        (["freeze dense/kernal"], "no variable matches 'dense/kernal'; the nearest: dense/kernel"),
        (["freeze **/kernal"], "no variable matches .*; the nearest: .*dense/kernel"),
        (["freeze kernel where w == 0"], "no variable matches 'kernel'; the nearest: .*dense/kernel"),
        (["freeze object:variables/x"], "no object path matches 'variables/x'; the nearest: variables/"),
        (["freeze bn/*"], r"matches only variables that a gradient does not train \(bn/moving_mean\).*named exactly"),
        (["freeze seed_generator/state"], "is uint32 state that does not train .a seed or a counter"),
        (["freeze twin"], "2 variables are named 'twin'.*: object:variables/5, object:variables/6"),
        (["freeze dense/kernel[3]"], r"selector 'dense/kernel\[3\]', variable 'dense/kernel': index 3 is out of range"),
        (["freeze **/kernel[:, 7]"], r"variable 'dense/kernel': index 7 is out of range .* \(shape \(3, 4\)\)"),
        (["freeze dense/bias[0, 0]"], r"the index has 2 axes, the variable has 1: its shape is \(4,\)"),
        (["freeze dense/kernel where w == 17"], "selector 'dense/kernel where w == 17' selects no element"),
        (["freeze dense/kernel[1:1]"], "selects no element"),
        (["freeze dense/kernel", "train **/kernel where w < 0"], r"selector '\*\*/kernel where w < 0' selects no"),
        (["freeze dense/kernel where w > 1e50"], "variable 'dense/kernel': 1e\\+50 is not representable in float32"),
        (["freeze dense/kernel := 1e50"], "1e\\+50 is not representable in float32: too large"),
        (["freeze dense/kernel := 1e-60"], "it would become 0"),
        (["freeze steps := 0.5"], r"0.5 is not representable in int64: an integer in \["),
        (["freeze steps := 9223372036854775808"], "not representable in int64"),
        (["train dense/kernel := 0"], "cannot follow --train"),
        (["freeze dense/kernel", "train **"], "nothing is frozen"),
        (["train dense/kernel"], "nothing is frozen"),
        ([], "nothing is frozen"),
    ],
)
def test_wrong_selections_are_explained(selections: list[str], message: str) -> None:
    with pytest.raises(SelectorError, match=message) as caught:
        plan_of(model(), *selections)
    assert caught.value.exit_code == 2


def test_a_glob_with_a_predicate_need_not_hold_in_every_variable() -> None:
    frozen = only(plan_of(model(), "freeze **/kernel where w == 0"))
    assert frozen.variable.name == "dense/kernel"
    assert frozen_positions(frozen) == [(1, 2)]


def test_an_index_and_a_predicate_must_both_hold() -> None:
    frozen = only(plan_of(model(), "freeze dense/kernel[:, 1:3] where w > 5"))
    assert frozen_positions(frozen) == [(1, 1), (2, 1), (2, 2)]


def test_values_to_freeze_at() -> None:
    plan = plan_of(
        model(),
        "freeze dense/kernel := 0.5",
        "freeze dense/kernel[0] := -2",
        "train dense/kernel[0, 0]",
        # Without a value it is the current one, also after an earlier value.
        "freeze dense/kernel[1]",
    )
    frozen = only(plan)
    assert frozen.value.dtype == np.float32
    assert frozen.value.tolist() == [[0, -2, -2, -2], [5, 6, 0, 8], [0.5, 0.5, 0.5, 0.5]]


def test_the_current_value_undoes_a_value() -> None:
    frozen = only(plan_of(model(), "freeze dense/kernel := 0.5", "freeze dense/kernel"))
    np.testing.assert_array_equal(frozen.value, model().read(frozen.variable))


def test_the_source_is_not_changed() -> None:
    source = model()
    before = {variable: source.read(variable).copy() for variable in source.variables}
    plan_of(source, "freeze **", "freeze **[0] := 7", "train **[1]")
    for variable, value in before.items():
        np.testing.assert_array_equal(source.read(variable), value)


def test_a_value_from_a_file(tmp_path: Path) -> None:
    wanted = np.full((3, 4), 0.25)
    np.save(tmp_path / "value.npy", wanted)
    frozen = only(plan_of(model(), "freeze dense/kernel[0] := value.npy", base_directory=tmp_path))
    assert frozen.value.dtype == np.float32
    assert frozen.value.tolist() == [[0.25] * 4, [0] * 4, [0] * 4]


def test_bfloat16_values_from_a_file(tmp_path: Path) -> None:
    wanted = np.array([0.1, 3], ml_dtypes.bfloat16)
    np.save(tmp_path / "value.npy", wanted)
    source = TableSource({"x": np.ones(2, ml_dtypes.bfloat16)})
    frozen = only(plan_of(source, "freeze x := value.npy", base_directory=tmp_path))
    assert frozen.value.dtype == wanted.dtype
    assert frozen.value.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (np.float32, np.array([1e50, 0]), "not representable in float32"),
        (np.float32, np.array([1e-60, 0]), "not representable in float32"),
        (np.int32, np.array([1.0, 2.0]), "expected an array of int32, found float64"),
        (np.int32, np.array([2**40, 0]), "not representable in int32"),
        (np.float32, np.array([1 + 2j, 0]), "expected an array of float32, found complex128"),
        (np.float32, np.array(["a", "b"]), "expected an array of float32, found str"),
    ],
)
def test_values_that_do_not_fit(tmp_path: Path, dtype: type, value: np.ndarray, message: str) -> None:
    np.save(tmp_path / "value.npy", value)
    with pytest.raises(SelectorError, match=message):
        plan_of(TableSource({"x": np.ones(2, dtype)}), "freeze x := value.npy", base_directory=tmp_path)


def test_a_selection_has_its_own_directory(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([True, False, False, False]))
    selection = Selection("freeze", "dense/bias @ mask.npy", tmp_path)
    frozen = only(resolve_plan([selection], model(), base_directory=Path("/nonexistent")))
    assert frozen_positions(frozen) == [(0,)]
    assert frozen.selectors == ("freeze dense/bias @ mask.npy",)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [
        (np.int8, -128),
        (np.uint64, 2**64 - 1),
        (np.bool_, 1),
        (np.float16, 0.1),
        (ml_dtypes.bfloat16, 0.1),
        (np.float64, 1e300),
        (np.complex64, 2.5),
        (np.complex128, -1),
    ],
)
def test_numbers_in_every_dtype(dtype: type, number: float) -> None:
    frozen = only(plan_of(TableSource({"x": np.zeros(2, dtype)}), f"freeze x[0] := {number!r}"))
    expected: npt.NDArray[Any] = np.array([number], dtype)
    assert frozen.value.dtype == expected.dtype
    assert frozen.value[:1].tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int4", "uint4", "string", "object"])
def test_dtypes_that_cannot_be_masked_are_refused_by_name(dtype: str) -> None:
    source = TableSource({"other": np.ones(2, np.float32)})
    source.variables.append(Variable("x", "variables/9", (2,), dtype, True))
    with pytest.raises(UnsupportedDtypeError, match=f"variable 'x' has dtype {dtype}"):
        plan_of(source, "freeze x")
    assert source.read_names == []


def test_a_glob_passes_over_text() -> None:
    source = TableSource({"x": np.ones(2, np.float32)})
    source.variables.append(Variable("vocabulary", "variables/9", (2,), "string", True))
    assert only(plan_of(source, "freeze **")).variable.name == "x"


def test_a_variable_without_elements_never_enters_the_plan() -> None:
    source = TableSource({"x": np.ones(2, np.float32), "none": np.ones((0, 3), np.float32)})
    assert only(plan_of(source, "freeze **")).variable.name == "x"
    with pytest.raises(SelectorError, match="selects no element"):
        plan_of(source, "freeze none")


def test_a_scalar() -> None:
    source = TableSource({"scale": np.array(2.0, np.float32)})
    frozen = only(plan_of(source, "freeze scale where w == 2"))
    assert (frozen.mask.shape, frozen.mask.item(), frozen.value.shape, frozen.value.item()) == ((), False, (), 2)


def test_the_plan_is_sorted_and_names_the_endpoints() -> None:
    plan = plan_of(model(), "freeze lstm/**", "freeze dense/kernel", only_in=["serve"])
    assert [frozen.variable.name for frozen in plan.variables] == ["dense/kernel", "lstm/lstm_cell/kernel"]
    assert plan.only_in == ("serve",)


@pytest.mark.parametrize(
    ("selector", "shape"),
    [
        ("x", (1, 1, 1)),
        ("x[0]", (3, 1, 1)),
        ("x[:, 1:]", (1, 4, 1)),
        ("x[..., 0]", (1, 1, 5)),
        ("x[0, :, 0]", (3, 1, 5)),
        ("x[0, 0, 0]", (3, 4, 5)),
    ],
)
def test_masks_have_the_smallest_shape(selector: str, shape: tuple[int, ...]) -> None:
    frozen = only(plan_of(TableSource({"x": np.ones((3, 4, 5), np.float32)}), f"freeze {selector}"))
    assert frozen.mask.shape == shape


@given(st.lists(st.integers(1, 3), max_size=3).map(tuple), st.integers(0, 2**27 - 1))
def test_the_smallest_mask_broadcasts_back_and_cannot_shrink(shape: tuple[int, ...], bits: int) -> None:
    size = int(np.prod(shape))
    full = np.array([bits >> place & 1 for place in range(size)], bool).reshape(shape)
    small = smallest_broadcastable(full)
    np.testing.assert_array_equal(np.broadcast_to(small, shape), full)
    for axis, length in enumerate(small.shape):
        assert length == 1 or (np.diff(full.astype(int), axis=axis) != 0).any()


@pytest.mark.parametrize(
    ("selector", "copies"),
    # A whole variable at its current value needs the temporaries of the checks; other values are a copy of their own.
    [("x", 0.55), ("x := 0", 1.6), ("x[:, 5]", 1.9)],
)
def test_freezing_a_large_variable_takes_about_one_more_copy(selector: str, copies: float) -> None:
    source = TableSource({"x": np.random.default_rng(0).normal(size=(1000, 2000)).astype(np.float32)})
    size = source.read(source.variables[0]).nbytes
    tracemalloc.start()
    try:
        frozen = only(plan_of(source, f"freeze {selector}"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frozen.mask.size in (1, 2000)
    assert peak < copies * size
