from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.artifact.data import DataSource, load_data
from graphfreeze.artifact.manifest import BatchEntry
from graphfreeze.errors import DataError

ENTRIES = (
    BatchEntry("x", "input", ("batch", 4), "float32"),
    BatchEntry("ids", "input", ("batch", "time"), "int32"),
    BatchEntry("scale", "input", (), "float32"),
    BatchEntry("y", "target", ("batch",), "int64"),
)
FIXED = (BatchEntry("x", "input", (8, 4), "float32"), BatchEntry("y", "target", (8,), "int64"))


def good(examples: int = 5) -> dict[str, npt.NDArray[Any]]:
    return {
        "x": np.arange(examples * 4, dtype=np.float32).reshape(examples, 4),
        "ids": np.arange(examples * 3, dtype=np.int32).reshape(examples, 3),
        "scale": np.array(2, np.float32),
        "y": np.arange(examples, dtype=np.int64),
    }


def save_directory(directory: Path, arrays: dict[str, npt.NDArray[Any]]) -> Path:
    for name, array in arrays.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(directory / f"{name}.npy", array)
    return directory


@pytest.mark.parametrize("form", ["mapping", "npz", "directory"])
def test_batches_have_the_rows_that_were_asked_for(tmp_path: Path, form: str) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=False, **good())
    directory = save_directory(tmp_path / "directory", good())
    sources: dict[str, DataSource] = {"mapping": good(), "npz": tmp_path / "data.npz", "directory": directory}
    dataset = load_data(sources[form], ENTRIES)
    assert (dataset.examples, dataset.fixed_batch_size, dataset.casts) == (5, None, ())
    batch = dataset.batch(np.array([3, 1]))
    np.testing.assert_array_equal(batch["y"], [3, 1])
    np.testing.assert_array_equal(batch["x"], [[12, 13, 14, 15], [4, 5, 6, 7]])
    np.testing.assert_array_equal(batch["scale"], 2)
    assert {name: array.dtype.name for name, array in batch.items()} == {e.name: e.dtype for e in ENTRIES}


def test_a_key_with_slashes_is_a_path(tmp_path: Path) -> None:
    entries = (BatchEntry("a/x", "input", ("batch",), "float32"), BatchEntry("y.out", "target", ("batch",), "float32"))
    arrays = {"a/x": np.zeros(2, np.float32), "y.out": np.ones(2, np.float32)}
    assert set(load_data(save_directory(tmp_path, arrays), entries).arrays) == {"a/x", "y.out"}


@pytest.mark.parametrize(
    ("found", "expected", "values"),
    [
        ("float64", "float32", [0.1, 2.0]),
        ("float32", "float16", [0.1, 2.0]),
        ("int32", "int64", [-1, 5]),
        ("int64", "int32", [-1, 2**31 - 1]),
        ("uint8", "float32", [0, 255]),
        ("int64", "float32", [0, 1]),
        ("bool", "float32", [0, 1]),
        ("float32", "bfloat16", [0.1, 2.0]),
        ("float32", "int64", [-3.0, 5.0]),
    ],
)
def test_dtypes_are_cast_where_the_numbers_survive(found: str, expected: str, values: list[float]) -> None:
    dataset = load_data({"x": np.array(values, found)}, (BatchEntry("x", "input", ("batch",), expected),))
    assert dataset.casts == (f"x: {found} -> {expected}",)
    batch = dataset.batch(slice(None))["x"]
    assert batch.dtype.name == expected
    np.testing.assert_allclose(batch.astype(np.float64), np.array(values, np.float64), rtol=1e-2)


@pytest.mark.parametrize(
    ("found", "expected", "values"),
    [
        ("int64", "int32", [2**31]),
        ("int64", "uint32", [-1]),
        ("int64", "float32", [2**24 + 1]),
        ("float32", "int64", [1.0, 1.5]),
        ("float64", "int32", [2.0**31]),
        ("float32", "int32", [float("nan")]),
        ("complex64", "float32", [1.0]),
        ("<U1", "float32", ["a"]),
        ("float32", "bool", [1.0]),
    ],
)
def test_dtypes_are_refused_where_numbers_would_be_lost(found: str, expected: str, values: list[Any]) -> None:
    with pytest.raises(DataError, match=rf"expected {expected}, and its numbers do not survive"):
        load_data({"x": np.array(values, found)}, (BatchEntry("x", "input", ("batch",), expected),))


def change(**arrays: npt.NDArray[Any] | None) -> dict[str, npt.NDArray[Any]]:
    merged: dict[str, npt.NDArray[Any] | None] = {**good(), **arrays}
    return {name: array for name, array in merged.items() if array is not None}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (change(y=None), r"lacks y\. Expected: x float32\[batch, 4\], .*, y int64\[batch\]"),
        (change(z=np.zeros(5)), "has the unexpected z"),
        (change(x=np.zeros((5, 3), np.float32)), r"x has the shape \[5, 3\], expected \[batch, 4\]"),
        (change(y=np.zeros((5, 2), np.int64)), r"y has the shape \[5, 2\], expected \[batch\]"),
        (change(y=np.zeros(4, np.int64)), r"'batch' is 5 in x and 4 in y"),
        (good(0), "no examples"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data: dict[str, npt.NDArray[Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(data, ENTRIES)


def test_an_axis_of_size_one_at_the_end_may_be_there_or_not() -> None:
    """Labels as CIFAR-10 has them; targets of a model with one number for each example."""
    entries = (BatchEntry("x", "input", ("batch", 1), "float32"), BatchEntry("y", "target", ("batch",), "int64"))
    batch = load_data({"x": np.zeros(3, np.float32), "y": np.array([[2], [0], [1]])}, entries).batch(slice(None))
    assert batch["x"].shape == (3, 1)
    assert batch["y"].tolist() == [2, 0, 1]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32"])
def test_what_is_no_index_is_refused(dtype: str) -> None:
    entries = (BatchEntry("y", "target", ("batch",), "int64", below=3),)
    load_data({"y": np.array([0, 2, 1], dtype)}, entries)
    for odd in (3, *([] if dtype == "uint8" else [-1])):
        with pytest.raises(DataError, match=f"y holds {odd}.*, expected numbers from 0 to 2: they index"):
            load_data({"y": np.array([0, odd, 1], dtype)}, entries)


def test_bytes_that_are_no_bools_are_refused() -> None:
    odd = np.array([0, 1, 255], np.uint8).view(np.bool_)
    for dtype in ("bool", "float32"):
        with pytest.raises(DataError, match=r"x holds the byte 255, expected bools, each a byte that is 0 or 1\."):
            load_data({"x": odd}, (BatchEntry("x", "input", ("batch",), dtype),))


def test_a_model_of_one_batch_size_still_takes_any_number_of_rows() -> None:
    arrays: dict[str, npt.NDArray[Any]] = {"x": np.zeros((16, 4), np.float32), "y": np.arange(16)}
    dataset = load_data(arrays, FIXED)
    assert (dataset.examples, dataset.fixed_batch_size) == (16, 8)
    assert dataset.batch(np.arange(8, 16))["y"].tolist() == list(range(8, 16))
    with pytest.raises(DataError, match=r"one row per example, found x: 16, y: 15 rows"):
        load_data({**arrays, "y": np.arange(15)}, FIXED)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "data.npz", x=objects, allow_pickle=True)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    entries = (BatchEntry("x", "input", ("batch",), "float32"),)
    for source in (tmp_path / "data.npz", tmp_path):
        with pytest.raises(DataError, match="Pickled objects are never loaded"):
            load_data(source, entries)


def test_files_that_are_no_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("x,y\n1,2\n")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY")
    for name, message in (
        ("missing.npz", "does not exist"),
        ("text.npz", "is not an .npz"),
        ("one.npy", "is not an .npz"),
        ("zip.npz", "cannot be read"),
    ):
        with pytest.raises(DataError, match=message):
            load_data(tmp_path / name, ENTRIES)
