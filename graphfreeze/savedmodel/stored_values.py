"""Whether the values in the checkpoint are those of the variables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.checkpoint import Checkpoint
from graphfreeze.selection.variable import Variable

__all__ = ["check_values"]

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
