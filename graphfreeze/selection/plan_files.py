"""The freeze plan on disk: `plan.json` says what is frozen, `masks.safetensors` holds the masks and frozen values.

safetensors keeps `mask/OBJECT_PATH` (bool, in the smallest broadcastable shape) and `value/OBJECT_PATH`: the values of
the frozen elements alone, in row-major order. Those of a large variable can be left out where the SavedModel's
checkpoint holds them: `plan.json` then has the checksum of the variable's value there. numpy has no
bfloat16 of its own and not every safetensors holds complex numbers, so a bfloat16 value is stored as uint16 with the
same bits, and a complex one as floats with a last axis of 2: real part, imaginary part. `plan.json` has the dtype.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection.bool_bytes import odd_bool
from graphfreeze.selection.dtypes import dtype_kind
from graphfreeze.selection.masks import broadcast_count, frozen_pieces
from graphfreeze.selection.plan import FreezePlan, FrozenVariable, LazyFrozenVariable
from graphfreeze.selection.plan_document import check_plan_document
from graphfreeze.selection.tensor_stream import DTYPES, Pending, write_tensors
from graphfreeze.selection.variable import Variable, numpy_dtype

__all__ = ["SCHEMA_VERSION", "load_plan", "save_plan"]

SCHEMA_VERSION = 1

StoredValues = Callable[[Variable, int], npt.NDArray[Any]]

_PLAN_FILE = "plan.json"
_MASKS_FILE = "masks.safetensors"

# Larger arrays stay on disk until they are needed.
_KEPT_BYTES = 1 << 18
# How many elements are read at a time.
_PIECE = 1 << 21


def save_plan(plan: FreezePlan, directory: Path, checksums: Mapping[str, int] | None = None) -> None:
    """Write the plan into the directory, which exists. The same plan gives the same bytes.

    Args:
        plan: The plan.
        directory: Where to.
        checksums: Object path -> the CRC-32C of a variable's value, where its frozen values stay in the checkpoint.

    Raises:
        OSError: The files cannot be written.
    """
    checksums = checksums or {}
    tensors: dict[str, Pending] = {}
    for frozen in plan.variables:
        path = frozen.variable.object_path
        tensors[_mask_key(path)] = Pending(np.dtype(np.bool_), frozen.mask_shape, partial(getattr, frozen, "mask"))
        dtype, pair = _storage(frozen.variable)
        if path not in checksums:
            tensors[_value_key(path)] = Pending(dtype, (frozen.frozen_elements, *pair), partial(_kept_values, frozen))
    write_tensors(directory / _MASKS_FILE, tensors)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "only_in": list(plan.only_in),
        "variables": [_describe(frozen, checksums) for frozen in plan.variables],
    }
    if plan.tags is not None:
        document["tags"] = list(plan.tags)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (directory / _PLAN_FILE).write_bytes(text.encode())


def load_plan(directory: Path, stored: StoredValues | None = None) -> FreezePlan:
    """Read the plan that `save_plan` wrote.

    Args:
        directory: Where it is.
        stored: Reads what a variable holds in the SavedModel's checkpoint, given the checksum that it must have. Asked
            only for frozen values that the plan leaves there, when they are needed.

    Raises:
        ArtifactReadError: A file is missing, corrupt, of another version, or the two disagree.
    """
    document = _read_document(directory / _PLAN_FILE)
    tensors = _Tensors(directory / _MASKS_FILE)
    try:
        check_plan_document(document)
        plan = FreezePlan(
            tuple(_restore(entry, tensors, directory, stored) for entry in document["variables"]),
            tuple(document["only_in"]),
            tuple(document["tags"]) if "tags" in document else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactReadError(f"{directory / _PLAN_FILE} is not a freeze plan: {error!r}; rewrite again") from None
    expected = {_mask_key(frozen.variable.object_path) for frozen in plan.variables}
    expected |= {_value_key(frozen.variable.object_path) for frozen in plan.variables if frozen.checksum is None}
    if expected != tensors.names:
        raise ArtifactReadError(
            f"{directory}: {_PLAN_FILE} and {_MASKS_FILE} disagree on {sorted(expected ^ tensors.names)}; rewrite again"
        )
    return plan


def _kept_values(frozen: FrozenVariable) -> Iterator[npt.NDArray[Any]]:
    """The values of the frozen elements, as they are stored, in pieces."""
    return (_to_storage(piece) for piece in frozen.frozen_pieces())


def _describe(frozen: FrozenVariable, checksums: Mapping[str, int]) -> dict[str, Any]:
    variable = frozen.variable
    kept = {"checkpoint_crc32c": checksums[variable.object_path]} if variable.object_path in checksums else {}
    return kept | {
        "name": variable.name,
        "object_path": variable.object_path,
        "shape": list(variable.shape),
        "dtype": variable.dtype,
        "trainable": variable.trainable,
        "form": frozen.form,
        "elements": frozen.elements,
        "frozen_elements": frozen.frozen_elements,
        "selectors": list(frozen.selectors),
    }


def _restore(
    entry: Mapping[str, Any], tensors: _Tensors, directory: Path, stored: StoredValues | None
) -> FrozenVariable:
    variable = Variable(
        name=entry["name"],
        object_path=entry["object_path"],
        shape=tuple(entry["shape"]),
        dtype=entry["dtype"],
        trainable=entry["trainable"],
    )
    mask = tensors.read(_mask_key(variable.object_path), variable)
    dtype, pair = _storage(variable)
    key = _value_key(variable.object_path)
    checksum = entry.get("checkpoint_crc32c")
    if checksum is not None and (not isinstance(checksum, int) or pair):
        raise ValueError(f"checkpoint_crc32c {checksum!r} of {variable.name!r}")
    shape, found = tensors.describe(key) if checksum is None else ((int(entry["frozen_elements"]),), dtype)
    if found != dtype:
        raise ValueError(f"the value of {variable.name!r} is stored as {found}, expected {dtype}")
    if entry["form"] not in ("blend", "select"):
        raise ValueError(f"form {entry['form']!r}")
    fits = mask.ndim == len(variable.shape) and all(
        size in (1, whole) for size, whole in zip(mask.shape, variable.shape, strict=True)
    )
    frozen_elements = broadcast_count(~mask, variable.shape) if fits else -1
    if mask.dtype != np.bool_ or not fits or shape != (frozen_elements, *pair):
        raise ArtifactReadError(
            f"{directory / _MASKS_FILE}: the mask ({mask.dtype.name} {mask.shape}) or the value {shape} of "
            f"{variable.name!r} does not fit its shape {variable.shape}; rewrite again"
        )

    def read_frozen() -> npt.NDArray[Any]:
        if checksum is not None:
            return np.concatenate(list(read_pieces()))
        return _from_storage(tensors.read(key, variable), variable)

    def read_pieces() -> Iterator[npt.NDArray[Any]]:
        if checksum is not None:
            if stored is None:
                raise ArtifactReadError(
                    f"{directory / _PLAN_FILE} leaves the frozen values of {variable.name!r} in the checkpoint of the "
                    "SavedModel, which is not at hand: give the whole output of the rewrite"
                )
            return frozen_pieces(stored(variable, checksum), frozen.mask)
        return (_from_storage(piece, variable) for piece in tensors.pieces(key, shape[0], variable))

    def read_value() -> npt.NDArray[Any]:
        kept = read_frozen()
        if frozen_elements == frozen.elements:
            return kept.reshape(variable.shape)
        value = np.zeros(variable.shape, kept.dtype)
        value[~np.broadcast_to(frozen.mask, variable.shape)] = kept
        return value

    frozen: FrozenVariable = LazyFrozenVariable(
        variable,
        entry["form"],
        tuple(entry["selectors"]),
        frozen_elements,
        mask.shape,
        partial(tensors.read, _mask_key(variable.object_path), variable) if mask.nbytes > _KEPT_BYTES else lambda: mask,
        read_value,
        read_pieces,
        at_current=checksum is not None,
        checksum=checksum,
    )
    if checksum is None and frozen.elements * numpy_dtype(variable.dtype).itemsize <= _KEPT_BYTES:
        frozen = FrozenVariable(variable, mask, frozen.value, frozen.form, frozen.selectors)
    if (frozen.elements, frozen.frozen_elements) != (entry["elements"], entry["frozen_elements"]):
        raise ArtifactReadError(
            f"{directory}: {_PLAN_FILE} counts {entry['frozen_elements']} of {entry['elements']} elements of "
            f"{variable.name!r} frozen, the mask {frozen.frozen_elements} of {frozen.elements}; rewrite again"
        )
    return frozen


def _read_document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactReadError(f"{path} is missing: expected the freeze plan of a rewrite") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactReadError(f"{path} is not readable JSON: {error}; rewrite again") from None
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise ArtifactReadError(
            f"{path} has schema_version {version!r}, this version of graphfreeze reads {SCHEMA_VERSION}; rewrite again"
        )
    return dict(document)


class _Tensors:
    """The tensors of a safetensors file, read when asked for. It is not kept open: a mapped file counts as memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._open() as file:
            self.names = frozenset(file.keys())

    def read(self, name: str, variable: Variable) -> npt.NDArray[Any]:
        """A tensor that belongs to a variable."""
        with self._open() as file:
            tensor: npt.NDArray[Any] = file.get_tensor(self._known(name))
        return self._without_odd_bools(name, variable, tensor)

    def pieces(self, name: str, length: int, variable: Variable) -> Iterator[npt.NDArray[Any]]:
        """A tensor that belongs to a variable, in consecutive pieces along its first axis, which has that length."""
        if length <= _PIECE:
            yield self.read(name, variable)
            return
        for start in range(0, length, _PIECE):
            with self._open() as file:
                piece: npt.NDArray[Any] = file.get_slice(self._known(name))[start : min(start + _PIECE, length)]
            yield self._without_odd_bools(name, variable, piece)

    def _without_odd_bools(self, name: str, variable: Variable, tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if (odd := odd_bool(tensor)) is not None:
            raise ArtifactReadError(
                f"{self.path}: the {name.partition('/')[0]} of {variable.name!r} holds the byte {odd}, expected bools, "
                "each a byte that is 0 or 1; rewrite again"
            )
        return tensor

    def describe(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """The shape and dtype of a tensor."""
        with self._open() as file:
            tensor = file.get_slice(self._known(name))
            return tuple(tensor.get_shape()), DTYPES.get(tensor.get_dtype(), np.dtype(np.void))

    def _known(self, name: str) -> str:
        if name not in self.names:
            raise KeyError(name)
        return name

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with safe_open(self.path, framework="numpy") as file:
                yield file
        except FileNotFoundError:
            raise ArtifactReadError(f"{self.path} is missing: expected the masks of a rewrite") from None
        except (OSError, SafetensorError, AttributeError, TypeError) as error:
            raise ArtifactReadError(f"{self.path} is not a readable safetensors file: {error}; rewrite again") from None


def _storage(variable: Variable) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype in which a variable's values are stored, and the axes that an element takes there."""
    dtype = numpy_dtype(variable.dtype)
    if variable.dtype == "bfloat16":
        return np.dtype(np.uint16), ()
    if dtype_kind(variable.dtype) == "complex":
        return np.dtype(f"f{dtype.itemsize // 2}"), (2,)
    return dtype, ()


def _to_storage(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if value.dtype.name == "bfloat16":
        return value.view(np.uint16)
    if dtype_kind(value.dtype.name) == "complex":
        return np.stack([value.real, value.imag], axis=-1)
    return value


def _from_storage(stored: npt.NDArray[Any], variable: Variable) -> npt.NDArray[Any]:
    dtype = numpy_dtype(variable.dtype)
    return stored.view(dtype)[..., 0] if dtype_kind(variable.dtype) == "complex" else stored.view(dtype)


def _mask_key(object_path: str) -> str:
    return f"mask/{object_path}"


def _value_key(object_path: str) -> str:
    return f"value/{object_path}"
