"""Whether the values in the checkpoint are those of the variables."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.checkpoint import Checkpoint
from graphfreeze.savedmodel.graph_variables import GraphVariable
from graphfreeze.selection.variable import Variable

__all__ = ["check_stored", "check_values"]

# Nothing on disk bounds the size of a variable without a value.
_MAX_ELEMENTS_WITHOUT_VALUE = 1 << 28


def check_values(variables: Mapping[int, Variable], keys: Mapping[int, str], checkpoint: Checkpoint) -> None:
    """Compare the shapes and dtypes of variables with the checkpoint's, so that masks need not be made for absurd ones.

    Args:
        variables: Object node -> variable.
        keys: Object node -> key of its value in the checkpoint, where there is one.
        checkpoint: The checkpoint.

    Raises:
        ModelReadError: A value has another shape or dtype, or two variables have the same object path.
    """
    paths: set[str] = set()
    for node, variable in variables.items():
        label = f"variable {variable.name!r} ({variable.object_path})"
        if variable.object_path in paths:
            raise ModelReadError(f"The SavedModel is corrupt: another object is called like {label}. Export it again.")
        paths.add(variable.object_path)
        key = keys.get(node)
        if key is None:
            if math.prod(variable.shape) > _MAX_ELEMENTS_WITHOUT_VALUE:
                raise ModelReadError(f"{checkpoint.prefix} holds no value for {label}, of shape {variable.shape}.")
            continue
        if key not in checkpoint.shapes:
            raise ModelReadError(f"{checkpoint.prefix} lacks {key!r}, the value of {label}. Export the model again.")
        found = (tuple(checkpoint.shapes[key]), checkpoint.dtypes[key])
        if found != (variable.shape, variable.dtype):
            raise ModelReadError(
                f"The SavedModel is corrupt: {label} has shape {variable.shape} and dtype {variable.dtype}, but its "
                f"value in {checkpoint.prefix} has {found[0]} and {found[1]}. Export the model again."
            )


def check_stored(variables: Iterable[GraphVariable], checkpoint: Checkpoint) -> None:
    """The same for the variables of a graph without objects, some of which may be slices of a stored value.

    Raises:
        ModelReadError: A value has another shape or dtype, or a slice lies outside of it.
    """
    for found in variables:
        variable, place = found.variable, found.stored
        if place is None:
            if math.prod(variable.shape) > _MAX_ELEMENTS_WITHOUT_VALUE:
                raise ModelReadError(
                    f"{checkpoint.prefix} holds no value for {variable.name!r}, of shape {variable.shape}."
                )
            continue
        if place.key not in checkpoint.shapes:
            raise ModelReadError(
                f"{checkpoint.prefix} lacks {place.key!r}, the value of {variable.name!r}. Export the model again."
            )
        whole = tuple(checkpoint.shapes[place.key])
        expected = (variable.shape, variable.dtype)
        if (_part_shape(place.part, whole), checkpoint.dtypes[place.key]) != expected:
            raise ModelReadError(
                f"The SavedModel is corrupt: variable {variable.name!r} has shape {variable.shape} and dtype "
                f"{variable.dtype}, but its value {place.path!r} in {checkpoint.prefix} has another one "
                f"({whole}, {checkpoint.dtypes[place.key]}). Export the model again."
            )


def _part_shape(part: str, whole: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a slice, as the saver writes it (`10 4 0,5:-`); None where it is none of that whole."""
    if not part:
        return whole
    *sizes, text = part.split(" ")
    ranges = text.split(":")
    if [str(size) for size in whole] != sizes or len(ranges) != len(whole):
        return None
    shape = []
    for extent, size in zip(ranges, whole, strict=True):
        match = re.fullmatch(r"(\d{1,18}),(\d{1,18})", extent)
        if match is None and extent != "-":
            return None
        start, length = (0, size) if match is None else (int(match[1]), int(match[2]))
        if start + length > size:
            return None
        shape.append(length)
    return tuple(shape)
