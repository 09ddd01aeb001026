"""Masks and frozen values in the rewritten graph, compared with the plan bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import tensor_pb2, types_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.targets import NUMPY_NAMES, Target
from graphfreeze.selection.masks import frozen_pieces, same_bytes
from graphfreeze.selection.variable import numpy_dtype

__all__ = [
    "STORED_MARK",
    "broadcasts",
    "check_form",
    "check_mask",
    "check_value",
    "decode",
    "differing_elements",
    "numpy_size",
    "place_of",
]

Array = npt.NDArray[Any]

STORED_MARK = b"graphfreeze: the bytes lie in a shard"
"""The first string of a constant that stands for a tensor of the checkpoint; the others are the file and the offset."""

_FIELDS = {
    "float32": "float_val",
    "float64": "double_val",
    "float16": "half_val",
    "bfloat16": "half_val",
    "bool": "bool_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
}

_SMALLEST_NORMAL = {
    types_pb2.DT_HALF: 2.0**-14,
    types_pb2.DT_BFLOAT16: 2.0**-126,
    types_pb2.DT_FLOAT: 2.0**-126,
    types_pb2.DT_DOUBLE: 2.0**-1022,
}
"""The smallest normal number of each dtype that blending is exact for."""


def decode(tensor: tensor_pb2.TensorProto) -> Array | None:
    """The array in a TensorProto, or None where it holds none of its own shape and of a known dtype."""
    if tensor.dtype not in NUMPY_NAMES or tensor.tensor_shape.unknown_rank:
        return None
    name = NUMPY_NAMES[tensor.dtype]
    dtype = numpy_dtype(name)
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if min(shape, default=0) < 0:
        return None
    size = int(np.prod(shape, dtype=np.int64))
    place = place_of(tensor)
    if place is not None:
        # Mapped, so that of a large value only what is looked at is read.
        return np.memmap(place[0], dtype, "r", place[1], shape) if size else np.zeros(shape, dtype)
    content = tensor.tensor_content  # each access copies
    if content:
        if len(content) != size * dtype.itemsize:
            return None
        return np.frombuffer(content, dtype).reshape(shape)
    field = _FIELDS.get(name, "int_val")
    listed = getattr(tensor, field)
    if field == "half_val":
        values = np.array(listed, np.uint16).view(dtype)
    elif name.startswith("complex"):
        values = np.array(listed, np.float32 if name == "complex64" else np.float64).view(dtype)
    else:
        values = np.array(listed, dtype)
    if len(values) > size:
        return None
    # The last listed value stands for all that follow; none at all means zeros.
    last = values[-1:] if len(values) else np.zeros(1, dtype)
    return np.concatenate([values, np.repeat(last, size - len(values))]).reshape(shape)


def place_of(tensor: tensor_pb2.TensorProto) -> tuple[str, int] | None:
    """The file and the offset in it where the bytes of a tensor of the checkpoint lie, or None where it is none."""
    if len(tensor.string_val) != 3 or tensor.string_val[0] != STORED_MARK:
        return None
    return tensor.string_val[1].decode(), int(tensor.string_val[2])


def numpy_size(dtype: int, shape: list[int]) -> int:
    """How many bytes a tensor takes, or -1 where no masked read has its dtype."""
    if dtype not in NUMPY_NAMES:
        return -1
    return int(np.prod(shape, dtype=np.int64)) * numpy_dtype(NUMPY_NAMES[dtype]).itemsize


def _bits(array: Array) -> Array:
    """The array's bits as integers, so that -0.0 is not 0.0 and NaN is itself; complex gets an axis of two."""
    # Not ascontiguousarray, which turns a scalar into a vector.
    contiguous = array if array.flags.c_contiguous else array.copy(order="C")
    if contiguous.dtype.itemsize <= 8 and contiguous.dtype.kind != "c":
        return contiguous.view(f"u{contiguous.dtype.itemsize}")
    half = contiguous.dtype.itemsize // 2
    return contiguous.reshape((*array.shape, 1)).view(f"u{half}")


def differing_elements(left: Array, right: Array) -> npt.NDArray[np.bool_]:
    """Where two arrays of one shape and dtype differ in bits."""
    unequal: Array = _bits(left) != _bits(right)
    return np.asarray(unequal.any(axis=-1) if unequal.ndim > left.ndim else unequal, np.bool_)


def broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether a tensor of that shape broadcasts to exactly the other."""
    tail = to[len(to) - len(shape) :] if len(shape) <= len(to) else ()
    return len(tail) == len(shape) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _first(different: Array) -> list[int]:
    return [int(i[0]) for i in np.nonzero(different)]


def _different(found: Array, expected: Array, target: Target) -> Array:
    bits = np.broadcast_to(_bits(found), target.shape + _bits(found).shape[found.ndim :])
    unequal: Array = bits != _bits(expected)
    return np.asarray(unequal.any(axis=-1)) if unequal.ndim > len(target.shape) else unequal


def check_mask(target: Target, found: Array, function: str, node: str) -> None:
    """Prove that a mask constant is the plan's: bool for select; 1 and 0 in the variable's dtype for blend.

    Raises:
        VerificationError: An element differs.
    """
    dtype = np.dtype(bool) if target.frozen.form == "select" else numpy_dtype(target.frozen.variable.dtype)
    expected = target.frozen.mask.astype(dtype)
    # Leading axes of one element change nothing of what a mask broadcasts to.
    whole = found.reshape((1,) * (expected.ndim - found.ndim) + found.shape)
    if whole.shape == expected.shape and np.array_equal(_bits(whole), _bits(expected)):
        return
    different = _different(found, np.broadcast_to(expected, target.shape), target)
    if different.any():
        index = _first(different)
        refuse(
            f"expected the plan's mask, found another one: {int(different.sum())} of {different.size} elements differ, "
            f"the first at {index}",
            variable=target.name,
            function=function,
            node=node,
            index=index,
        )


def check_value(target: Target, found: Array, function: str, node: str) -> None:
    """Prove that a constant holds the plan's frozen values; for blend also -0.0 at every trainable element.

    Raises:
        VerificationError: An element differs.
    """
    of_target = target.frozen.form == "select" and found.shape == target.shape
    if of_target and same_bytes(frozen_pieces(found, target.frozen.mask), target.frozen.frozen_pieces()):
        return
    value, mask = target.frozen.value, target.frozen.full_mask
    if target.frozen.form == "blend":
        expected = np.where(mask, -np.zeros((), value.dtype), value)
        if found.shape == expected.shape and np.array_equal(_bits(found), _bits(expected)):
            return
        different = _different(found, expected, target)
    else:
        different = _different(found, value, target) & ~mask
    if different.any():
        index = _first(different)
        kind = "trainable" if mask[tuple(index)] else "frozen"
        refuse(
            f"expected the plan's frozen values (and -0.0 at trainable elements of a blend), found other bits: "
            f"{int(different.sum())} elements differ, the first at {index}, which is {kind}",
            variable=target.name,
            function=function,
            node=node,
            index=index,
        )


def check_form(target: Target) -> None:
    """Prove that blending is exact for the frozen values: normal numbers or +0.0, of a floating dtype.

    Raises:
        VerificationError: The plan asks for blend where its arithmetic would change bits.
    """
    if target.frozen.form == "select":
        return
    if target.dtype not in _SMALLEST_NORMAL:
        refuse(f"expected the form select for dtype {target.frozen.variable.dtype}, found blend", variable=target.name)
    frozen = target.frozen.frozen_values
    smallest = _SMALLEST_NORMAL[target.dtype]
    exact = np.isfinite(frozen) & ((np.abs(frozen) >= smallest) | ((frozen == 0) & ~np.signbit(frozen)))
    if not exact.all():
        refuse(
            f"expected blend only where it is exact, found the frozen value {frozen[~exact][0]!s}, which needs select",
            variable=target.name,
        )
