"""The freeze plan: for each targeted variable, which elements are frozen, at which values, in which form."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.selection.masks import broadcast_count, frozen_only
from graphfreeze.selection.variable import Variable

__all__ = ["Form", "FreezePlan", "FrozenVariable", "LazyFrozenVariable"]

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
    def mask_shape(self) -> tuple[int, ...]:
        """The shape of the mask."""
        return self.mask.shape

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.value.shape

    @property
    def at_current(self) -> bool:
        """Whether it is known that the frozen values are the variable's own, as the model stores it."""
        return False

    @property
    def checksum(self) -> int | None:
        """The CRC-32C of the variable's stored value, where the plan keeps no other copy of the frozen values."""
        return None

    @property
    def elements(self) -> int:
        """How many elements the variable has."""
        return int(np.prod(self.variable.shape, dtype=np.int64))

    @property
    def frozen_elements(self) -> int:
        """How many of them are frozen."""
        return self.elements - broadcast_count(self.mask, self.variable.shape)

    @property
    def frozen_values(self) -> npt.NDArray[Any]:
        """The values of the frozen elements alone, in row-major order."""
        return frozen_only(self.value, self.mask)

    def frozen_pieces(self) -> Iterator[npt.NDArray[Any]]:
        """The same in consecutive pieces."""
        yield self.frozen_values

    @property
    def wholly_frozen(self) -> bool:
        """Whether no element trains: such a variable has no gradient, no optimizer state, no update."""
        return not bool(self.mask.any())

    def held_by(self, variable: Variable) -> FrozenVariable:
        """The same mask and values for another variable of the same shape."""
        other = copy.copy(self)
        object.__setattr__(other, "variable", variable)
        return other


class LazyFrozenVariable(FrozenVariable):
    """A targeted variable that is too large to be kept: mask and values are made again whenever they are asked for.

    Args:
        variable: The variable.
        form: The form of the masked read.
        selectors: The selectors that decided it.
        frozen_elements: How many elements are frozen.
        mask_shape: The shape of the mask.
        read_mask: Makes the mask.
        read_value: Makes the values.
        read_frozen: Makes the values of the frozen elements alone, in consecutive pieces.
        at_current: Whether they are the variable's own.
        checksum: The checksum of the variable's stored value, where the frozen values are read from there.
    """

    def __init__(
        self,
        variable: Variable,
        form: Form,
        selectors: tuple[str, ...],
        frozen_elements: int,
        mask_shape: tuple[int, ...],
        read_mask: Callable[[], npt.NDArray[np.bool_]],
        read_value: Callable[[], npt.NDArray[Any]],
        read_frozen: Callable[[], Iterator[npt.NDArray[Any]]],
        *,
        at_current: bool = False,
        checksum: int | None = None,
    ) -> None:
        # The class is frozen, as what it stands for.
        for name, given in (("variable", variable), ("form", form), ("selectors", selectors)):
            object.__setattr__(self, name, given)
        object.__setattr__(self, "_frozen_elements", frozen_elements)
        object.__setattr__(self, "_mask_shape", mask_shape)
        object.__setattr__(self, "_at_current", at_current)
        object.__setattr__(self, "_checksum", checksum)
        object.__setattr__(self, "_readers", (read_mask, read_value, read_frozen))

    _frozen_elements: int
    _mask_shape: tuple[int, ...]
    _at_current: bool
    _checksum: int | None
    _readers: tuple[
        Callable[[], npt.NDArray[np.bool_]], Callable[[], npt.NDArray[Any]], Callable[[], Iterator[npt.NDArray[Any]]]
    ]

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """The mask, made now."""
        return self._readers[0]()

    @property
    def value(self) -> npt.NDArray[Any]:
        """The values, made now."""
        return self._readers[1]()

    @property
    def frozen_values(self) -> npt.NDArray[Any]:
        """The values of the frozen elements alone, made now."""
        pieces = list(self._readers[2]())
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def frozen_pieces(self) -> Iterator[npt.NDArray[Any]]:
        """The same in consecutive pieces, one in memory at a time."""
        return self._readers[2]()

    @property
    def at_current(self) -> bool:
        """Whether it is known that the frozen values are the variable's own, as the model stores it."""
        return self._at_current

    @property
    def checksum(self) -> int | None:
        """The CRC-32C of the variable's stored value, where the plan keeps no other copy of the frozen values."""
        return self._checksum

    @property
    def mask_shape(self) -> tuple[int, ...]:
        """The shape of the mask."""
        return self._mask_shape

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.variable.shape

    @property
    def frozen_elements(self) -> int:
        """How many elements are frozen."""
        return self._frozen_elements

    @property
    def wholly_frozen(self) -> bool:
        """Whether no element trains."""
        return self._frozen_elements == self.elements


@dataclass(frozen=True)
class FreezePlan:
    """The resolved selection.

    Attributes:
        variables: The targeted variables, sorted by name, then object path.
        only_in: The endpoints to which the freeze is limited; none for everywhere.
        tags: Of a SavedModel with several graphs, the tags of the one that the variables' names are from.
    """

    variables: tuple[FrozenVariable, ...] = ()
    only_in: tuple[str, ...] = field(default=())
    tags: tuple[str, ...] | None = None

    def find(self, object_path: str) -> FrozenVariable | None:
        """The targeted variable at that object path, or None where the variable trains as a whole."""
        return next((v for v in self.variables if v.variable.object_path == object_path), None)
