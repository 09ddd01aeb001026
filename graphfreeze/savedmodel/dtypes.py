"""The names of dtypes."""

from __future__ import annotations

import tensorflow as tf

from graphfreeze.errors import ModelReadError

__all__ = ["dtype_name"]


def dtype_name(number: int) -> str:
    """The name of a dtype in a proto, as numpy spells it.

    Raises:
        ModelReadError: There is no such dtype.
    """
    try:
        name: str = tf.as_dtype(number).name
    except TypeError:
        raise ModelReadError(
            f"The SavedModel is corrupt: it names a dtype by the number {number}, which does not exist. "
            "Export the model again."
        ) from None
    return name
