"""What lowering knows of a TensorList, the variant that TensorFlow's loops collect their results in.

A list is a value: TensorListSetItem makes a new one. Changes are only noted until someone needs the items, because a
loop that writes item after item becomes one scan output, and what nobody reads is never built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.tensor import Dim, Tensor

__all__ = ["Change", "ChangeKind", "ItemShape", "KeptLists", "ListVariable", "MustCarry", "TensorList"]

ItemShape = tuple[tuple[int, ...], ...]
"""The shape of an item at each sample batch size."""


class ChangeKind(Enum):
    """How a list differs from the one that it was made of."""

    SET = "the item at an index is another"
    ADD = "something is added to the item at an index"
    RESIZE = "items are cut off at the end, or unset ones appended"
    PUSH = "a loop's iteration appends one item"
    POP = "a loop's iteration removes the last item"


@dataclass(eq=False, slots=True)
class Change:
    """A change to a list that is not carried out yet.

    Attributes:
        kind: What changes.
        base: The list before.
        index: Where, for SET and ADD.
        item: What is set, added or pushed.
    """

    kind: ChangeKind
    base: TensorList
    index: Tensor | None = None
    item: Tensor | None = None


@dataclass(eq=False, slots=True)
class ListVariable:
    """A list that the body of a loop takes from the iteration before and changes.

    Attributes:
        initial: The list before the loop.
        reads: The indices that the body reads from it.
        last_index: Where TensorListPopBack finds its item, None where the length before the loop is not known.
    """

    initial: TensorList
    reads: list[Tensor] = field(default_factory=list)
    last_index: Tensor | None = None


@dataclass(eq=False, slots=True)
class TensorList:
    """A TensorList.

    Its items are `stack`, or all equal `item`, or follow from `change`, or are those of a loop's `variable`. Where all
    of these are None the items are unset, which reads as zeros.

    Attributes:
        dtype: The items' dtype.
        length: How many items it has, at each sample; None where it changes from iteration to iteration.
        shape: The items' shape at each sample batch size, None as long as it is not determined.
        declared: The element shape that TensorFlow was given, with -1 for what is unknown.
        stack: All items along a new first axis.
        item: The one tensor that every item equals.
        change: How it differs from another list.
        variable: Set where it is the argument of a loop's body.
        inner: Where the items are lists (a loop in a loop): what those have in common. `stack` stacks their stacks.
        rows: All items along a new first axis, where only run time knows how many there are. `length` is None then.
        nested: Where the items are lists that a loop kept which data end. `rows` only tells how many there are.
    """

    dtype: np.dtype[Any]
    length: Dim | None
    shape: ItemShape | None = None
    declared: Tensor | None = None
    stack: Tensor | None = None
    item: Tensor | None = None
    change: Change | None = None
    variable: ListVariable | None = None
    inner: TensorList | None = None
    rows: ir.Value | None = None
    nested: KeptLists | None = None

    @property
    def is_unset(self) -> bool:
        """Whether no item was ever written."""
        parts = (self.stack, self.item, self.change, self.variable, self.rows, self.nested)
        return all(part is None for part in parts)

    @property
    def root_variable(self) -> ListVariable | None:
        """The loop's variable that it is made of, if any."""
        current = self
        while current.change is not None:
            current = current.change.base
        return current.variable


@dataclass(frozen=True, eq=False, slots=True)
class KeptLists:
    """The lists that a loop kept of a loop inside of it, one an iteration.

    Attributes:
        parts: The arrays that hold them, of an unknown number of rows each, and what a row of each is like.
        at: Makes the list of an iteration of such arrays and an index.
    """

    parts: list[tuple[ir.Value, Tensor]]
    at: Callable[[Sequence[ir.Value], Tensor], TensorList]

    def __getitem__(self, index: Tensor) -> TensorList:
        """The list of one iteration."""
        return self.at([value for value, _ in self.parts], index)

    @property
    def counted(self) -> ir.Value | None:
        """An array with a row for each iteration, None where the lists are all the same."""
        return self.parts[-1][0] if self.parts else None


class MustCarry(Exception):  # noqa: N818 - not an error: the loop is lowered again with this list among its states
    """A loop's list is used in a way that needs all its items at every iteration."""

    def __init__(self, variable: ListVariable, shape: ItemShape | None) -> None:
        super().__init__("a list must be carried from iteration to iteration")
        self.variable = variable
        self.shape = shape
