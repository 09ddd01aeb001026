"""What to say where TensorFlow refuses sizes that a graph is looked at with."""

from __future__ import annotations

import re

from graphfreeze.lowering.rule import CannotLower

__all__ = ["misfit"]

_PLACES = re.compile(r"\{\{.*?\}\}\s*|for '.*|\[Op:.*", re.DOTALL)
"""What TensorFlow says of the places: these are of the graph that it was asked with, not of the model."""


def misfit(error: Exception) -> CannotLower:
    """The reason why an operation cannot be lowered whose sizes TensorFlow refuses."""
    message = _PLACES.sub("", str(getattr(error, "message", error))).strip().rstrip(":. ")
    return CannotLower(
        f"its sizes do not fit for every batch and every length of sequences (TensorFlow at one of them: {message}); "
        "export the model with fixed sizes, a length that its strides divide say"
    )
