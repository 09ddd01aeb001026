from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphfreeze.errors import SelectorError
from graphfreeze.selection.predicate import evaluate, parse_predicate
from graphfreeze.selection.scanner import Scanner

W = np.array([-2.0, -0.5, -0.0, 0.0, 0.1, 0.5, 2.0, np.inf, np.nan], np.float32)


def holds(text: str, value: npt.NDArray[Any] = W) -> list[bool]:
    scanner = Scanner(text)
    predicate = parse_predicate(scanner)
    scanner.expect_end("the end")
    result = evaluate(predicate, value)
    assert result.dtype == np.bool_
    assert result.shape == value.shape
    return [bool(element) for element in result.ravel()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("w == 0", W == 0),
        ("w != 0", W != 0),
        ("0 == w", W == 0),
        ("w == 0.1", np.float32(0.1) == W),
        ("abs(w) < 1e-3", np.abs(W) < 1e-3),
        ("abs(w - 1) <= .5", np.abs(W - 1) <= 0.5),
        ("(w > -1) & (w < 1)", (W > -1) & (W < 1)),
        ("w > -1 & w < 1", (W > -1) & (W < 1)),
        ("w < -1 | w > 1 & w < inf", (W < -1) | (W == 2)),
        ("~(w > 0)", ~(W > 0)),
        ("~~(w > 0)", W > 0),
        ("w == inf", np.isposinf(W)),
        ("w == -inf", np.isneginf(W)),
        ("w != w", np.isnan(W)),
        ("w == nan", np.zeros_like(W, bool)),
        ("w * 2 + 1 > 2", W * 2 + 1 > 2),
        ("1 + w * 2 > 2", 1 + W * 2 > 2),
        ("w / 2 / 2 < 0.2", W / 2 / 2 < 0.2),
        ("1 / w > 1", np.array([0, 0, 0, 1, 1, 1, 0, 0, 0], bool)),
        ("2 - w - 1 > 0", 2 - W - 1 > 0),
        ("-w > +0.3", -W > 0.3),
        ("w < 1/3", W < 1 / 3),
        ("(1 < 2) & (w > 0)", W > 0),
        ("~(1 < 2) | (w > 0)", W > 0),
        ("w>1E0", W > 1),
    ],
)
def test_predicates(text: str, expected: npt.NDArray[np.bool_]) -> None:
    assert holds(text) == expected.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected `w`, `abs"),
        ("w", "expected a comparison"),
        ("w = 0", "expected a comparison, as in `w == 0` at column 3, found '= 0'"),
        ("x == 0", "unknown name 'x' in the predicate, which knows w"),
        ("dense/kernel == 0", "unknown name 'dense'"),
        ("1 < 2", "does not mention `w`"),
        ("-1 < w < 1", "cannot be chained"),
        ("w == 0 and w < 1", "expected the end at column 8"),
        ("not w == 0", "writes 'not' as `~`"),
        ("w > 0 & and", "writes 'and' as `&`"),
        ("w & (w > 0)", "`&` applies to conditions"),
        ("(w > 0) | w", r"`\|` applies to conditions"),
        ("~w == 0", "`~` applies to conditions"),
        ("(w > 0) + 1 > 0", r"`\+` applies to numbers"),
        ("-(w > 0) == 1", "`-` applies to numbers"),
        ("abs(w > 0) == 1", "`abs` applies to numbers"),
        ("(w > 0) == 1", "`==` applies to numbers"),
        ("abs w < 1", r"expected '\('"),
        ("(w > 0", r"expected '\)' at column 7, found the end"),
        ("w ** 2 > 1", "expected `w`, `abs"),
        ("w > 1e99", "1e\\+99 is not representable in float32: too large"),
        ("w > 1e-99", "1e-99 is not representable in float32: it would become 0"),
        ("w > 1/0", "divides by zero"),
        ("w > " + "1" * 500, "longer than 400"),
        ("(" * 100 + "w > 0" + ")" * 100, "nested more than 32"),
        ("~" * 100 + "(w > 0)", "nested more than 32"),
        ("w" + "+w" * 300 + " > 0", "more than 200 operators"),
        ("__import__('os') == w", "unknown name '__import__'"),
        ("w.dtype == 0", "expected a comparison"),
    ],
)
def test_wrong_predicates_are_explained(text: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        holds(text)


def test_a_scalar_is_compared_in_its_own_dtype() -> None:
    assert holds("w == 0.1", np.array(0.1, np.float32)) == [True]


def test_bfloat16_is_compared_in_its_own_dtype() -> None:
    value = np.array([0.1, 0.2, -1], ml_dtypes.bfloat16)
    assert holds("w == 0.1", value) == [True, False, False]
    assert holds("abs(w) * 2 > 1", value) == [False, False, True]


def test_integers_are_compared_by_numpys_rules() -> None:
    value = np.array([0, 3, 200], np.uint8)
    assert holds("w > 0.5", value) == [False, True, True]
    assert holds("w < 1000", value) == [True, True, True]
    assert holds("w / 2 == 1.5", value) == [False, True, False]


def test_bools_are_compared_with_0_and_1() -> None:
    assert holds("w == 1", np.array([True, False])) == [True, False]
    with pytest.raises(SelectorError, match="cannot be computed in bool"):
        holds("-w == 1", np.array([True, False]))


def test_complex_numbers_have_no_order() -> None:
    value = np.array([3 + 4j, 0], np.complex64)
    assert holds("w == 0", value) == [False, True]
    assert holds("abs(w) >= 5", value) == [True, False]
    with pytest.raises(SelectorError, match=r"complex numbers have no order: compare abs\(w\)"):
        holds("w < 1", value)


numbers = st.sampled_from(["w", "0", "1", "2.5", "abs(w)", "(w + 1)", "-w", "(w * 2 - 1)"])
conditions = st.tuples(numbers, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), numbers).map(
    lambda parts: f"({' '.join(parts)})"
)
trees = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("&|"), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda condition: f"(~{condition})"),
    ),
    max_leaves=6,
)


@given(trees)
def test_parenthesised_predicates_agree_with_python(text: str) -> None:
    value = np.linspace(-3, 3, 13)
    if "w" not in text:
        with pytest.raises(SelectorError, match="does not mention"):
            holds(text, value)
        return
    # Python itself is the other truth: on one number at a time, with its own word for `~`.
    expected = [eval(text.replace("~", "not "), {"abs": abs, "w": number}) for number in value.tolist()]
    assert holds(text, value) == expected
