from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.artifact.manifest import BatchEntry
from graphfreeze.errors import DataError
from graphfreeze.runtime.batch_check import BatchCheck
from graphfreeze.runtime.device import Device
from graphfreeze.runtime.device_tensor import allocate, download, scalar_reader, writer

CPU = Device("cpu", "requested")
ENTRIES = (
    BatchEntry("x", "input", ("batch", 2), "float32"),
    BatchEntry("y", "target", ("batch",), "int64"),
)


def test_batches_are_checked_again_where_anything_is_new() -> None:
    check = BatchCheck(ENTRIES)
    good: dict[str, npt.NDArray[Any]] = {"x": np.zeros((3, 2), np.float32), "y": np.arange(3)}
    for _ in range(2):
        assert {name: array.tolist() for name, array in check(good).items()} == {"x": [[0, 0]] * 3, "y": [0, 1, 2]}
    wrong: tuple[Any, ...] = (
        {"x": good["x"]},
        {**good, "z": good["y"]},
        {**good, "x": np.zeros((3, 3), np.float32)},
        {**good, "y": np.arange(4)},
        {**good, "y": np.zeros(3, np.float32) + 0.5},
        {"x": [[0.0], [0.0]], "y": good["y"]},
    )
    for bad in wrong:
        with pytest.raises(DataError):
            check(bad)


def test_indices_and_ranks_are_looked_at_each_time() -> None:
    check = BatchCheck((ENTRIES[0], BatchEntry("y", "target", ("batch",), "int64", below=3)))
    x = np.zeros((2, 2), np.float32)
    for y in (np.array([0, 2]), np.array([1, 1]), np.array([[2], [0]]), np.array([[1], [0]])):
        assert check({"x": x, "y": y})["y"].tolist() == y.ravel().tolist()
    for odd in (np.array([0, 3]), np.array([-1, 1]), np.array([[3], [0]])):
        with pytest.raises(DataError, match="they index"):
            check({"x": x, "y": odd})


def test_what_had_to_be_cast_or_ordered_is_so_each_time() -> None:
    check = BatchCheck(ENTRIES)
    x = np.arange(6, dtype=np.float64).reshape(2, 3).T
    for _ in range(2):
        found = check({"x": x, "y": [1, 2, 3]})
        assert found["x"].dtype == np.float32 and found["x"].flags.c_contiguous
        assert (found["x"] == x).all() and found["y"].dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.bool_, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_written_arrays_are_in_the_tensor_and_not_shared(dtype: type, shape: tuple[int, ...]) -> None:
    tensor = allocate(shape, np.dtype(dtype), CPU)
    write = writer(tensor)
    for start in (0, 1):
        array: npt.NDArray[Any] = (np.arange(np.prod(shape, dtype=int)) + start).reshape(shape).astype(dtype)
        write(array)
        assert download(tensor).tolist() == array.tolist()
        kept = array.tolist()
        array[...] = 0
        assert download(tensor).tolist() == kept


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_scalar_is_read_anew_each_time(dtype: type) -> None:
    tensor = allocate((), np.dtype(dtype), CPU)
    read, write = scalar_reader(tensor), writer(tensor)
    for value in (0.5, -2.0):
        write(np.array(value, dtype))
        assert read() == value
