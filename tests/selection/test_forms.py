from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.errors import SelectorError
from graphfreeze.selection import FrozenVariable
from tests.selection.table_source import TableSource, only, plan_of

F32 = np.float32
DENORMAL = 1e-40


def frozen_form(value: npt.NDArray[Any], *selections: str, form: str = "auto") -> str:
    return only(plan_of(TableSource({"x": value}), *selections, form=form)).form


@pytest.mark.parametrize(
    ("current", "selection", "form"),
    [
        ([1, 2], "freeze x", "blend"),
        ([1, 0], "freeze x", "blend"),
        ([1, 2], "freeze x := 0", "blend"),
        ([-0.0, 2], "freeze x[0]", "select"),
        ([-0.0, 2], "freeze x[1]", "blend"),
        ([-0.0, 2], "freeze x := 1", "blend"),
        ([1, 2], "freeze x[0] := -0.0", "select"),
        ([1, 2], "freeze x[0] := 1e-40", "select"),
        ([1, 2], "freeze x[0] := inf", "select"),
        ([1, 2], "freeze x[0] := nan", "select"),
        ([DENORMAL, 2], "freeze x[0]", "select"),
        ([DENORMAL, 2], "freeze x[1]", "select"),
        ([-DENORMAL, 2], "freeze x := 1", "select"),
        ([np.inf, 2], "freeze x[1]", "select"),
        ([np.nan, 2], "freeze x[1]", "select"),
        ([np.nan, 2], "freeze x := 1", "select"),
    ],
)
def test_auto_takes_blend_only_where_it_is_exact(
    current: list[float], selection: str, form: Literal["blend", "select"]
) -> None:
    value = np.array(current, F32)
    assert frozen_form(value, selection) == form
    assert frozen_form(value, selection, form="select") == "select"
    if form == "blend":
        assert frozen_form(value, selection, form="blend") == "blend"
    else:
        with pytest.raises(
            SelectorError, match=r"variable 'x' cannot be frozen in the form blend.*: a (current|frozen)"
        ):
            frozen_form(value, selection, form="blend")


@pytest.mark.parametrize(
    ("dtype", "smallest_normal", "smallest_denormal"),
    [
        (np.float16, 2**-14, 2**-24),
        (ml_dtypes.bfloat16, 2**-126, 2**-133),
        (np.float32, 2**-126, 2**-149),
        (np.float64, 2**-1022, 5e-324),
    ],
)
def test_denormals_and_negative_zeros_of_every_floating_dtype(
    dtype: Any, smallest_normal: float, smallest_denormal: float
) -> None:
    assert frozen_form(np.array([1, smallest_normal, -smallest_normal], dtype), "freeze x") == "blend"
    assert frozen_form(np.array([1, smallest_denormal], dtype), "freeze x") == "select"
    assert frozen_form(np.array([1, -smallest_denormal], dtype), "freeze x") == "select"
    assert frozen_form(np.array([1, -0.0], dtype), "freeze x") == "select"
    assert frozen_form(np.array(-0.0, dtype), "freeze x") == "select"


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.complex64, np.complex128])
def test_other_dtypes_take_select(dtype: Any) -> None:
    value = np.ones(2, dtype)
    assert frozen_form(value, "freeze x") == "select"
    with pytest.raises(SelectorError, match=f"its dtype {value.dtype.name} is not floating"):
        frozen_form(value, "freeze x", form="blend")


def _blend(frozen: FrozenVariable, current: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The masked read in the form blend, as the freeze pass builds it."""
    dtype = current.dtype
    mask = frozen.full_mask.astype(dtype)
    constant = np.where(frozen.full_mask, np.array(-0.0, dtype), frozen.value)
    result: npt.NDArray[Any] = mask * current + (np.array(1, dtype) - mask) * constant
    return result


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_blend_keeps_every_bit_where_auto_takes_it(dtype: Any) -> None:
    generator = np.random.default_rng(1)
    limits = np.finfo(np.float32) if dtype is ml_dtypes.bfloat16 else np.finfo(dtype)
    special = np.array([0.0, -0.0, 1, -1, limits.smallest_normal, -limits.smallest_normal], dtype)
    for _ in range(20):
        current = np.concatenate([special, generator.normal(size=10).astype(dtype)])
        generator.shuffle(current)
        negative_zero = (current == 0) & np.signbit(current)
        positions = [int(place) for place in np.flatnonzero(~negative_zero) if generator.random() < 0.5]
        frozen = only(plan_of(TableSource({"x": current}), f"freeze x[{positions}]"))
        assert frozen.form == "blend"
        assert _blend(frozen, current).tobytes() == current.tobytes()
        # Whatever finite value the storage drifts to, the frozen elements read the same.
        drifted = generator.normal(size=current.shape).astype(dtype)
        effective = _blend(frozen, drifted)
        assert effective[positions].tobytes() == current[positions].tobytes()
        assert effective[frozen.full_mask].tobytes() == drifted[frozen.full_mask].tobytes()
