"""The freeze plan: for each targeted variable, which elements are frozen, at which values, in which form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.selection.variable import Variable

__all__ = ["Form", "FreezePlan", "FrozenVariable"]

Form = Literal["blend", "select"]


@dataclass(frozen=True)
class FrozenVariable:
    """One targeted variable.

    Attributes:
        variable: The variable.
        mask: bool, True = trainable. Same rank as the variable; an axis along which it does not vary has size 1,
            so that it broadcasts to the variable's shape.
        value: Of the variable's shape and dtype: the frozen values where the mask is False, zero elsewhere.
        form: The form of the masked read, already resolved (never `auto`).
        selectors: The selectors that decided it, in order, for the report.
    """

    variable: Variable
    mask: npt.NDArray[np.bool_]
    value: npt.NDArray[Any]
    form: Form
    selectors: tuple[str, ...] = ()

    @property
    def full_mask(self) -> npt.NDArray[np.bool_]:
        """The mask in the variable's own shape (a read-only view)."""
        return np.broadcast_to(self.mask, self.variable.shape)

    @property
    def elements(self) -> int:
        """How many elements the variable has."""
        return int(np.prod(self.variable.shape, dtype=np.int64))

    @property
    def frozen_elements(self) -> int:
        """How many of them are frozen."""
        return self.elements - int(np.count_nonzero(self.full_mask))

    @property
    def wholly_frozen(self) -> bool:
        """Whether no element trains: such a variable has no gradient, no optimizer state, no update."""
        return not bool(self.mask.any())


@dataclass(frozen=True)
class FreezePlan:
    """The resolved selection: the targeted variables, sorted by name, then object path."""

    variables: tuple[FrozenVariable, ...] = ()
    only_in: tuple[str, ...] = field(default=())

    def find(self, object_path: str) -> FrozenVariable | None:
        """The targeted variable at that object path, or None where the variable trains as a whole."""
        return next((v for v in self.variables if v.variable.object_path == object_path), None)
