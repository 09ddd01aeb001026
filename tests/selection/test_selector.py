from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graphfreeze.errors import SelectorError
from graphfreeze.selection.array_file import ArrayFile
from graphfreeze.selection.selector import parse_selector


@pytest.mark.parametrize(
    ("text", "pattern", "by_object_path", "index", "value"),
    [
        ("dense/kernel", "dense/kernel", False, None, None),
        ("  dense/kernel  ", "dense/kernel", False, None, None),
        ("dense/kernel:0", "dense/kernel", False, None, None),
        ("dense/kernel:0[0]", "dense/kernel", False, (0,), None),
        ("dense/kernel [0, 1]", "dense/kernel", False, (0, 1), None),
        ("dense/kernel:=0", "dense/kernel", False, None, 0),
        ("dense/kernel:0:=-1.5", "dense/kernel", False, None, -1.5),
        ("dense/kernel[:, :3] := 1e-3", "dense/kernel", False, (slice(None), slice(None, 3)), 0.001),
        ("x := inf", "x", False, None, float("inf")),
        ("x := -INF", "x", False, None, float("-inf")),
        ("x := value.npy", "x", False, None, ArrayFile("value.npy")),
        ("x[0] := some dir/value.npy", "x", False, (0,), ArrayFile("some dir/value.npy")),
        ("x := values.npz[a/b]", "x", False, None, ArrayFile("values.npz", "a/b")),
        ("**/k?rnel", "**/k?rnel", False, None, None),
        ("object:variables/0[..., 1]", "variables/0", True, (..., 1), None),
        ("object:layers/d:0", "layers/d:0", True, None, None),
        ("my layer/kernel[0]", "my layer/kernel", False, (0,), None),
        ("a where/kernel", "a where/kernel", False, None, None),
        ("where/kernel", "where/kernel", False, None, None),
        ("nowhere", "nowhere", False, None, None),
    ],
)
def test_selectors_without_a_predicate(
    text: str, pattern: str, by_object_path: bool, index: object, value: object
) -> None:
    selector = parse_selector(text)
    assert selector.pattern == pattern
    assert selector.by_object_path is by_object_path
    assert selector.index == index
    assert selector.value == value
    assert selector.mask_file is None and selector.predicate is None
    assert selector.selects_all is (index is None)


@pytest.mark.parametrize(
    "text", ["x where w == 0", "x where(w == 0)", "x[0] where w == 0", "x[0]where w == 0 := 3", "x where w==0:=3"]
)
def test_a_predicate_follows_where(text: str) -> None:
    selector = parse_selector(text)
    assert selector.pattern == "x"
    assert selector.predicate is not None
    assert not selector.selects_all
    assert selector.value == (3 if "3" in text else None)


@pytest.mark.parametrize(
    ("text", "file", "value"),
    [
        ("x @ mask.npy", ArrayFile("mask.npy"), None),
        ("x@mask.npy", ArrayFile("mask.npy"), None),
        ("x @ some dir/mask.npy := 0", ArrayFile("some dir/mask.npy"), 0),
        ("x @ masks.npz[dense/kernel]", ArrayFile("masks.npz", "dense/kernel"), None),
        ("x @ masks.npz [ a ] := v.npy", ArrayFile("masks.npz", "a"), ArrayFile("v.npy")),
    ],
)
def test_a_mask_file_follows_an_at_sign(text: str, file: ArrayFile, value: object) -> None:
    selector = parse_selector(text)
    assert (selector.pattern, selector.mask_file, selector.value) == ("x", file, value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "selector '': expected the name of a variable, as `inspect` lists it, at column 1, found the end"),
        ("   ", "expected the name of a variable"),
        ("[0]", "expected the name of a variable"),
        ("object:[0]", "expected the name of a variable"),
        (":0", "expected the name of a variable"),
        ("@ mask.npy", "expected the name of a variable"),
        ("x[0] y", "expected 'where', ':=' or the end at column 6, found 'y'"),
        ("x[0][1]", "expected 'where', ':=' or the end at column 5"),
        ("x[0] @ mask.npy", "expected 'where', ':=' or the end at column 6"),
        ("x where", "expected `w`"),
        ("x where w == 0 y", "expected an operator, ':=' or the end at column 16"),
        ("x where w == 0 [0]", "expected an operator, ':=' or the end at column 16"),
        ("x @ mask.npy where w == 0", "expected a mask file, `mask.npy` or `masks.npz"),
        ("x @ mask", "expected a mask file, `mask.npy` or `masks.npz\\[key\\]`, at column 5, found 'mask'"),
        ("x @ masks.npz", "expected a mask file"),
        ("x @", "expected a mask file"),
        ("x :=", "expected a number or `value.npy` at column 5, found the end"),
        ("x := zero", "expected a number or `value.npy`"),
        ("x := 1 2", "expected the end at column 8, found '2'"),
        ("x := 1 := 2", "expected the end"),
        ("x := 1_000", "expected the end at column 7"),
        ("x := " + "9" * 5000, "longer than 400 characters"),
    ],
)
def test_wrong_selectors_are_explained(text: str, message: str) -> None:
    with pytest.raises(SelectorError, match=message):
        parse_selector(text)


def test_a_label_names_files_without_their_directories() -> None:
    selector = parse_selector("x @ /home/me/masks.npz[a] := C:\\data\\v.npy")
    assert selector.label == "x @ masks.npz[a] := v.npy"


WORDS = ["x", "dense/kernel", "object:", " where ", "w", "abs", "m.npy", "m.npz[k]", "1e3", "inf", "-1", "0", "é", "٣"]
SYMBOLS = [
    "*",
    "**",
    "[",
    "]",
    ":",
    ",",
    "...",
    " ",
    "(",
    ")",
    "~",
    "&",
    "|",
    "<",
    "==",
    ":=",
    "@",
    "+",
    "/",
    "\n",
    "\0",
]
pieces = st.sampled_from([*WORDS, *SYMBOLS])


@given(st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join)))
@example("x[" + "[" * 10_000)
@example("x where " + "(" * 10_000)
@example("x where " + "~" * 10_000)
@example("x where w" + "+w" * 10_000 + ">0")
@example("x" + " " * 100_000 + "y")
@example("x where " + " " * 100_000)
@example("x := " + "1" * 100_000)
@example("x @ " + ".npz[" * 20_000)
@example("x[" + "1," * 20_000 + "1]")
def test_any_text_parses_or_is_a_selector_error(text: str) -> None:
    started = time.process_time()
    try:
        parse_selector(text)
    except SelectorError as error:
        assert str(error).startswith("selector ")
    assert time.process_time() - started < 1
