"""The dtypes whose elements can be frozen, and how numbers enter them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError, UnsupportedDtypeError
from graphfreeze.selection.variable import Variable, numpy_dtype

__all__ = ["DtypeKind", "cast_array", "cast_number", "check_supported", "dtype_kind"]

DtypeKind = Literal["float", "complex", "integer", "bool"]

_KINDS: dict[str, DtypeKind] = {
    **dict.fromkeys(("float16", "bfloat16", "float32", "float64"), "float"),
    **dict.fromkeys(("complex64", "complex128"), "complex"),
    **dict.fromkeys(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"), "integer"),
    "bool": "bool",
}


def dtype_kind(name: str) -> DtypeKind | None:
    """The family of the dtype of that name, or None where its elements cannot be frozen."""
    return _KINDS.get(name)


def check_supported(variable: Variable) -> None:
    """Refuse a variable whose elements cannot be masked.

    Raises:
        UnsupportedDtypeError: TensorFlow has no masked read for the dtype (float8, 4-bit integers, strings).
    """
    if variable.dtype not in _KINDS:
        raise UnsupportedDtypeError(
            f"variable {variable.name!r} has dtype {variable.dtype}, whose elements cannot be frozen; "
            f"supported are {', '.join(_KINDS)}. Leave it out of the selectors"
        )


def cast_number(number: float, dtype: np.dtype[Any]) -> Any:
    """The number as a scalar of the dtype, rounded to nearest where the dtype is floating.

    Raises:
        SelectorError: The number does not fit: too large, too small to differ from zero, or not an integer.
    """
    kind = _KINDS[dtype.name]
    if kind in ("integer", "bool"):
        lowest, highest = (0, 1) if kind == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not isinstance(number, int) or not lowest <= number <= highest:
            raise SelectorError(f"{number!r} is not representable in {dtype.name}: an integer in [{lowest}, {highest}]")
        return dtype.type(number)
    try:
        with np.errstate(all="ignore"):
            scalar = dtype.type(float(number))
    except OverflowError:
        scalar = dtype.type(np.inf)
    if np.isinf(scalar) and not _is_infinite(number):
        raise SelectorError(f"{number!r} is not representable in {dtype.name}: too large")
    if scalar == 0 and number != 0:
        raise SelectorError(f"{number!r} is not representable in {dtype.name}: it would become 0")
    return scalar


def cast_array(array: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """The array in the dtype of that name, under the rules of `cast_number`.

    Raises:
        SelectorError: An element is not representable in the dtype.
    """
    target = numpy_dtype(dtype)
    # numpy writes the types of ml_dtypes as raw bytes of their size.
    if array.dtype.kind == "V" and array.dtype.itemsize == target.itemsize and target.kind == "V":
        return array.view(target)
    if array.dtype == target:
        return array
    if array.dtype.name not in _KINDS or not np.can_cast(array.dtype, target, "same_kind"):
        raise SelectorError(f"expected an array of {dtype}, found {array.dtype.name}")
    with np.errstate(all="ignore"):
        cast = array.astype(target)
        if dtype_kind(dtype) == "integer":
            exact = bool((cast == array).all())
        else:
            exact = bool((np.isfinite(cast) == np.isfinite(array)).all() and ((cast == 0) == (array == 0)).all())
    if not exact:
        raise SelectorError(f"the array of {array.dtype.name} holds numbers that are not representable in {dtype}")
    return cast


def _is_infinite(number: float) -> bool:
    return isinstance(number, float) and bool(np.isinf(number))
