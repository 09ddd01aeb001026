from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.errors import UnsupportedDtypeError, UsageError, ValidationError
from graphfreeze.runtime.cuda import why_no_cuda
from graphfreeze.runtime.device import choose_device
from graphfreeze.runtime.device_tensor import allocate, download, element_dtype, upload
from graphfreeze.selection.variable import numpy_dtype


def test_auto_says_what_it_took_and_why() -> None:
    device, missing = choose_device("auto"), why_no_cuda()
    assert device.kind == ("cuda" if missing is None else "cpu")
    assert device.reason == ("auto took CUDA: it works" if missing is None else f"auto took the CPU: {missing}")


def test_cuda_is_taken_or_refused_with_the_reason() -> None:
    missing = why_no_cuda()
    if missing is None:
        assert choose_device("cuda").kind == "cuda"
    else:
        with pytest.raises(ValidationError) as caught:
            choose_device("cuda")
        assert str(caught.value) == f"CUDA was demanded and cannot be used: {missing}."
        assert caught.value.exit_code == 1


def test_without_a_visible_gpu_nothing_is_printed_and_the_reason_names_the_driver() -> None:
    script = "from graphfreeze.runtime import choose_device; d = choose_device('auto'); print(d.kind, d.reason)"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"CUDA_VISIBLE_DEVICES": "-1"}
    )
    assert result.stderr == ""
    assert result.stdout.startswith("cpu auto took the CPU: ")
    assert "NVIDIA driver" in result.stdout or "built without CUDA" in result.stdout


def test_other_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="one of auto, cpu, cuda; found 'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64", "int8", "int64", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_tensors_go_to_the_device_and_back_by_copy(dtype: str, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape, dtype=int))
    array: npt.NDArray[Any] = np.arange(1, size + 1).astype(numpy_dtype(dtype)).reshape(shape)
    tensor = allocate(array.shape, array.dtype, choose_device("cpu"))
    upload(array.copy(), tensor)
    first, second = download(tensor), download(tensor)
    assert (first.dtype, first.shape, first.tobytes()) == (array.dtype, array.shape, array.tobytes())
    first[...] = 0
    assert second.tobytes() == download(tensor).tobytes() == array.tobytes()


def test_transposed_arrays_arrive_in_their_own_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    tensor = allocate((3, 2), array.dtype, choose_device("cpu"))
    upload(array, tensor)
    np.testing.assert_array_equal(download(tensor), array)


def test_upload_compares_shape_and_dtype() -> None:
    tensor = allocate((2,), np.dtype(np.float32), choose_device("cpu"))
    for array in (np.zeros(2, np.int32), np.zeros((1, 2), np.float32)):
        with pytest.raises(ValueError, match="expected"):
            upload(array, tensor)


def test_a_type_without_an_array_form_is_refused() -> None:
    with pytest.raises(UnsupportedDtypeError, match=r"seq\(tensor\(float\)\)"):
        element_dtype("seq(tensor(float))")
