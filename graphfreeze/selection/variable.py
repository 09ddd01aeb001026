"""What selection needs to know of a variable, wherever it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["Variable", "VariableSource", "numpy_dtype"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One weight of a SavedModel.

    Attributes:
        name: The variable's name, without `:0` (`lstm/lstm_cell/kernel`).
        object_path: Its path in the object graph (`variables/0`), unique in the model.
        shape: Its static shape.
        dtype: The name of its dtype, as numpy (with ml_dtypes) spells it: `float32`, `bfloat16`, `int64`.
        trainable: Whether the SavedModel marks it as trainable.
    """

    name: str
    object_path: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool

    @property
    def nbytes(self) -> int:
        """How many bytes its value takes; a string counts as a pointer."""
        size = 8 if self.dtype in ("string", "object") else numpy_dtype(self.dtype).itemsize
        return math.prod(self.shape) * size


class VariableSource(Protocol):
    """Something that has variables with values: a SavedModel on disk, or a table in a test."""

    @property
    def variables(self) -> Sequence[Variable]:
        """All variables, each once, sorted by name, then object path."""
        ...

    def read(self, variable: Variable) -> npt.NDArray[Any]:
        """The variable's current value, of its shape and dtype."""
        ...


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of that name, the types of ml_dtypes (`bfloat16`) included."""
    return np.dtype(getattr(ml_dtypes, name)) if hasattr(ml_dtypes, name) else np.dtype(name)
