"""numpy arrays to tensors of onnxruntime on a device, and back, always by copy.

On the CPU, `OrtValue.ortvalue_from_numpy` shares the array's memory and `OrtValue.numpy()` is a view: a training step
would write into arrays of the caller. And numpy has no bfloat16, which travels as its 16 bits.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime import OrtValue

from graphfreeze.errors import UnsupportedDtypeError
from graphfreeze.runtime.device import Device

__all__ = ["allocate", "download", "element_dtype", "scalar_reader", "upload", "writer"]

# onnxruntime spells types as ONNX does in lower case, with these exceptions.
_ONNX_NAMES = {"float": "FLOAT", "double": "DOUBLE"}


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any], device: Device) -> OrtValue:
    """A tensor on the device with undefined content."""
    element_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return OrtValue.ortvalue_from_shape_and_type(list(shape), element_type, device.kind, 0)


def upload(array: npt.NDArray[Any], tensor: OrtValue) -> None:
    """Copy an array into a tensor of the same shape and dtype."""
    # update_inplace compares sizes only.
    if tuple(tensor.shape()) != array.shape or element_dtype(tensor.data_type()) != array.dtype:
        raise ValueError(f"expected {tensor.data_type()}{tensor.shape()}, found {array.dtype}{list(array.shape)}")
    if array.size:
        array = np.asarray(array, order="C")
        tensor.update_inplace(array if array.dtype.isbuiltin == 1 else array.view(np.dtype(f"u{array.itemsize}")))


def download(tensor: OrtValue) -> npt.NDArray[Any]:
    """Copy a tensor into a new array."""
    dtype = element_dtype(tensor.data_type())
    if dtype.isbuiltin == 1:
        array: npt.NDArray[Any] = np.array(tensor.numpy(), dtype=dtype)
        return array.reshape(tensor.shape())
    on_host = OrtValue.ortvalue_from_shape_and_type(tensor.shape(), tensor.element_type(), "cpu", 0)
    on_host.update_inplace(tensor)
    content = ctypes.string_at(on_host.data_ptr(), on_host.tensor_size_in_bytes())
    return np.frombuffer(content, dtype).reshape(tensor.shape()).copy()


def writer(tensor: OrtValue) -> Callable[[npt.NDArray[Any]], None]:
    """What copies arrays of the tensor's shape and dtype into it: `upload`, without its checks where that can be."""
    view = _view(tensor)
    return partial(_upload_to, tensor) if view is None else partial(np.copyto, view)


def scalar_reader(tensor: OrtValue) -> Callable[[], float]:
    """What reads a tensor of one number again and again."""
    view = _view(tensor)
    return (lambda: float(download(tensor))) if view is None else (lambda: float(view))


def _upload_to(tensor: OrtValue, array: npt.NDArray[Any]) -> None:
    upload(array, tensor)


def _view(tensor: OrtValue) -> npt.NDArray[Any] | None:
    """An array in the tensor's own memory; None where numpy cannot reach it or has no such dtype."""
    if tensor.device_name() != "cpu" or element_dtype(tensor.data_type()).isbuiltin != 1:
        return None
    view: npt.NDArray[Any] = tensor.numpy().reshape(tensor.shape())
    # onnxruntime promises no view.
    return view if view.size and view.ctypes.data == tensor.data_ptr() else None


def element_dtype(onnx_type: str) -> np.dtype[Any]:
    """The numpy dtype of a type in onnxruntime's spelling: `tensor(float)`."""
    name = onnx_type.removeprefix("tensor(").removesuffix(")")
    try:
        number = onnx.TensorProto.DataType.Value(_ONNX_NAMES.get(name, name.upper()))
        dtype: np.dtype[Any] = onnx.helper.tensor_dtype_to_np_dtype(number)
    except (ValueError, KeyError) as error:
        raise UnsupportedDtypeError(f"Tensors of the type {onnx_type} are not supported.") from error
    return dtype
