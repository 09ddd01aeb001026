"""Operations on TensorLists: reading, changing, adding, and carrying out the changes where the items are needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphfreeze.lowering.list_rows import repeated, resized_rows, row_at
from graphfreeze.lowering.numbers import plus, static
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Dim, Tensor
from graphfreeze.lowering.tensor_list import Change, ChangeKind, ItemShape, MustCarry, TensorList

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = [
    "add_lists",
    "as_tensor",
    "changed",
    "get_item",
    "item_shape",
    "pop_back",
    "push_back",
    "resize",
    "same_index",
    "set_item",
    "settled",
    "stack",
    "unset_like",
    "with_stack",
]

# -- what a list is made of


def changed(base: TensorList, kind: ChangeKind, **parts: Tensor | None) -> TensorList:
    """The list with a change that is carried out on demand."""
    item = parts.get("item")
    return TensorList(
        base.dtype if item is None else item.dtype,
        base.length,
        item.shapes if item is not None else base.shape,
        base.declared,
        change=Change(kind, base, parts.get("index"), item),
    )


def unset_like(like: TensorList) -> TensorList:
    """A list of as many zeros of the same shape."""
    return TensorList(like.dtype, like.length, item_shape(like), like.declared)


def item_shape(of: TensorList) -> ItemShape | None:
    """The items' shape, from wherever it is known."""
    if of.shape is not None:
        return of.shape
    if of.variable is not None:
        return item_shape(of.variable.initial)
    if of.change is not None:
        return item_shape(of.change.base)
    known = of.declared.known if of.declared is not None else None
    if known is not None and all(array.ndim == 1 and (array >= 0).all() for array in known):
        return tuple(tuple(int(size) for size in array) for array in known)
    return None


def same_index(lowering: Lowering, left: Tensor, right: Tensor) -> bool | None:
    """Whether two indices are equal in every iteration (True), in none (False), or it cannot be told (None)."""
    if left is right:
        return True
    numbers = left.number, right.number
    one, two = left.induction, right.induction
    if one is not None and two is not None and one.iteration is two.iteration and one.scale == two.scale:
        numbers = one.offset, two.offset
    first, second = numbers
    if first is None or second is None:
        return None
    if first == second:
        return True
    reaches = lowering.sizes.reaches
    return False if reaches(first, plus(second, 1)) or reaches(second, plus(first, 1)) else None


# -- reading


def as_tensor(lowering: Lowering, of: TensorList) -> Tensor:
    """The variant tensor that the list is."""
    return Tensor(np.dtype(object), ((),) * len(lowering.samples), tensor_list=of)


def with_stack(like: TensorList, rows: Tensor) -> TensorList:
    """A list of these items."""
    shape = tuple(sizes[1:] for sizes in rows.shapes)
    return TensorList(like.dtype, rows.dim(0), shape, like.declared, stack=rows)


def get_item(lowering: Lowering, of: TensorList, index: Tensor, declared: Tensor | None = None) -> Tensor:
    """The item at an index; zeros where none was written.

    Raises:
        CannotLower: Nothing tells the shape of an unset item.
        MustCarry: The list of a loop was changed at an index that may be this one.
    """
    current = of
    while current.change is not None:
        change = current.change
        current, before = change.base, current
        if change.kind in (ChangeKind.SET, ChangeKind.ADD) and change.index is not None:
            same = same_index(lowering, index, change.index)
            if same is True and change.kind is ChangeKind.SET and change.item is not None:
                return change.item
            if same is False:
                continue
        elif change.kind is ChangeKind.RESIZE and index.number is not None and current.length is not None:
            if lowering.sizes.reaches(index.number, current.length):
                return _zeros(lowering, before, declared)
            if lowering.sizes.reaches(current.length, plus(index.number, 1)):
                continue
        current = settled(lowering, before)
    if current.variable is not None:
        current.variable.reads.append(index)
        return get_item(lowering, current.variable.initial, index, declared)
    if current.nested is not None:
        return as_tensor(lowering, current.nested[index])
    if current.item is not None:
        return current.item
    if current.rows is not None and current.shape is not None:
        found = lowering.builder.emit("Gather", current.rows, lowering.value(index), axis=0)
        item = Tensor(current.dtype, current.shape)
        item.values.update(lowering.tensor(found, current.dtype, item.dims).values)
        return item
    if current.stack is not None:
        row = row_at(lowering, current.stack, index)
        return row if current.inner is None else as_tensor(lowering, with_stack(current.inner, row))
    return _zeros(lowering, current, declared)


def _zeros(lowering: Lowering, of: TensorList, declared: Tensor | None) -> Tensor:
    shape = item_shape(of)
    if shape is None and declared is not None and declared.known is not None:
        shape = item_shape(TensorList(of.dtype, None, declared=declared))
    if shape is None:
        raise CannotLower("the shape of a TensorList's unset items is not determined")
    zero = Tensor(of.dtype, shape)
    value = lowering.builder.emit("Expand", np.zeros((1,) * zero.rank, of.dtype), lowering.shape(zero.dims))
    zero.values.update(lowering.tensor(value, of.dtype, zero.dims).values)
    return zero


# -- changing


def set_item(to: TensorList, index: Tensor, item: Tensor) -> TensorList:
    """The list with another item at an index."""
    return changed(to, ChangeKind.SET, index=index, item=item)


def push_back(lowering: Lowering, to: TensorList, item: Tensor) -> TensorList:
    """The list with one more item at its end."""
    if to.root_variable is not None:
        made = changed(to, ChangeKind.PUSH, item=item)
        made.length = None
        return made
    if to.length is None:
        raise CannotLower("a TensorList of unknown length grows")
    return set_item(_resized(to, plus(to.length, 1)), lowering.number(to.length, np.int32), item)


def pop_back(lowering: Lowering, of: TensorList, declared: Tensor | None) -> tuple[TensorList, Tensor]:
    """The list without its last item, and that item."""
    variable = of.variable
    if variable is not None:
        if variable.last_index is None:
            raise MustCarry(variable, item_shape(of))
        made = changed(of, ChangeKind.POP)
        made.length = None
        return made, get_item(lowering, variable.initial, variable.last_index, declared)
    if of.root_variable is not None:
        raise MustCarry(of.root_variable, item_shape(of))
    if of.length is None or not lowering.sizes.reaches(of.length, 1):
        raise CannotLower("TensorListPopBack of a list whose length is unknown or may be zero")
    before = plus(of.length, -1)
    last = lowering.number(before, np.int32)
    return _resized(of, before), get_item(lowering, of, last, declared)


def _resized(of: TensorList, length: Dim) -> TensorList:
    made = unset_like(of) if of.is_unset else changed(of, ChangeKind.RESIZE)
    made.length = length
    return made


def resize(of: TensorList, length: Dim) -> TensorList:
    """The list cut off at a length, or filled up to it with unset items."""
    if of.root_variable is not None:
        raise MustCarry(of.root_variable, item_shape(of))
    return _resized(of, length)


def add_lists(lowering: Lowering, lists: Sequence[TensorList]) -> TensorList:
    """The sum of lists, item by item. Unset items add nothing."""
    total, *others = [one for one in lists if not one.is_unset] or [lists[0]]
    for other in others:
        total = _add(lowering, total, other)
    return total


def _add(lowering: Lowering, left: TensorList, right: TensorList) -> TensorList:
    for one, other in ((left, right), (right, left)):
        change = other.change
        if change is not None and change.kind is ChangeKind.SET and change.base.is_unset:
            return changed(one, ChangeKind.ADD, index=change.index, item=change.item)
    rows = [stack(lowering, one) for one in (left, right)]
    value = lowering.builder.emit("Add", *(lowering.value(row) for row in rows))
    total = lowering.tensor(value, rows[0].dtype, rows[0].dims)
    return TensorList(total.dtype, left.length, item_shape(left), left.declared, stack=total)


# -- carrying changes out


def stack(lowering: Lowering, of: TensorList, declared: Tensor | None = None) -> Tensor:
    """All items along a new first axis.

    Raises:
        CannotLower: The list's length, or the shape of its unset items, is not determined.
        MustCarry: It is a list that a loop is changing.
    """
    done = settled(lowering, of)
    if done.inner is not None or done.nested is not None:
        raise CannotLower("a list of lists is used otherwise than item by item from its end")
    if done.stack is not None:
        return done.stack
    if done.length is None:
        raise CannotLower(
            "how many items a TensorList has is known only at run time; lists of a known length can be used"
        )
    item = done.item if done.item is not None else _zeros(lowering, done, declared)
    return repeated(lowering, item, done.length)


def settled(lowering: Lowering, of: TensorList) -> TensorList:
    """The same list with its changes done: unset, one repeated item, or a stack."""
    if of.root_variable is not None:
        raise MustCarry(of.root_variable, item_shape(of))
    change = of.change
    if change is None:
        return of
    made = _from_items(lowering, of)
    if made is not None:
        return made
    if change.kind is ChangeKind.RESIZE:
        assert of.length is not None
        rows = resized_rows(lowering, stack(lowering, change.base), of.length)
    else:
        assert change.index is not None and change.item is not None
        before = TensorList(of.dtype, of.length, of.shape) if change.base.is_unset else change.base
        index = lowering.reshape(lowering.builder.cast(lowering.value(change.index), np.dtype(np.int64)), [1, 1])
        row = lowering.reshape(lowering.value(change.item), [1, *change.item.dims])
        options = {"reduction": "add"} if change.kind is ChangeKind.ADD else {}
        rows = stack(lowering, before)
        value = lowering.builder.emit("ScatterND", lowering.value(rows), index, row, **options)
        rows = lowering.tensor(value, rows.dtype, rows.dims)
    return TensorList(rows.dtype, of.length, of.shape, of.declared, stack=rows)


def _from_items(lowering: Lowering, of: TensorList) -> TensorList | None:
    """The list from its items, where all of them were set at indices known now."""
    items: dict[int, Tensor] = {}
    current = of
    while current.change is not None and current.change.kind in (ChangeKind.SET, ChangeKind.RESIZE):
        change = current.change
        if change.kind is ChangeKind.SET:
            if change.index is None or change.index.constant is None or change.item is None:
                return None
            items.setdefault(int(change.index.constant), change.item)
        current = change.base
    length = None if of.length is None else static(of.length)
    if not length or any(index not in items for index in range(length)):
        return None
    chosen = [items[index] for index in range(length)]
    if all(item is chosen[0] for item in chosen):
        return TensorList(of.dtype, of.length, of.shape, of.declared, item=chosen[0])
    constants = [item.constant for item in chosen if item.constant is not None]
    if len(constants) == len(chosen):
        rows = lowering.constant(np.stack(constants))
    else:
        values = [lowering.reshape(lowering.value(item), [1, *item.dims]) for item in chosen]
        value = lowering.builder.emit("Concat", *values, axis=0)
        rows = lowering.tensor(value, of.dtype, [length, *chosen[0].dims])
    return TensorList(of.dtype, of.length, of.shape, of.declared, stack=rows)
