"""The values of a model's variables, which tracing does not need, are read when something runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.selection.variable import Variable
from graphfreeze.training.parameters import Parameter

__all__ = ["ReadValue", "StoredValues"]

ReadValue = Callable[[Variable], npt.NDArray[Any]]
"""Gives the value of a variable as a SavedModel stores it."""


class StoredValues:
    """The values that loaded variables do not hold yet.

    Args:
        read: What gives them; None where the variables hold them already.
    """

    def __init__(self, read: ReadValue | None = None) -> None:
        self._read = read

    @property
    def are_missing(self) -> bool:
        """Whether the variables hold nothing."""
        return self._read is not None

    def restore(self, parameters: Iterable[Parameter]) -> None:
        """Let the variables of these parameters hold their values, with what is frozen at its own."""
        read, self._read = self._read, None
        if read is None:
            return
        for parameter in parameters:
            value, frozen = read(parameter.variable), parameter.frozen
            if frozen is not None:
                value = np.where(frozen.full_mask, value, frozen.value)
            parameter.resource.assign(value)
            if parameter.state is not parameter.resource:
                parameter.state.assign(parameter.cut(value))
