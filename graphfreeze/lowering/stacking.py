"""What a Scan collects: the items of a list, one an iteration, as a stack that is there when the loop has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.all_iterations import merge_rows, split_rows
from graphfreeze.lowering.list_rows import numbered, repeated, slice_rows, unset_rows
from graphfreeze.lowering.loop_body import Results, ScanBody
from graphfreeze.lowering.numbers import plus, static
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Dim, Induction, Tensor
from graphfreeze.lowering.tensor_list import ChangeKind, ListVariable, MustCarry, TensorList
from graphfreeze.training.graph import Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["Later", "RaggedListsError", "Stacking"]

Later = Callable[[Results], Tensor]
"""Makes a tensor from what the Scan gives."""


class RaggedListsError(Exception):
    """The items that a loop collects are lists of lists, or lists of lengths that data decide: it must be a Loop."""


class Stacking:
    """Decides, while the body of a Scan is open, how its lists come out of it."""

    def __init__(self, lowering: Lowering, body: ScanBody) -> None:
        self.lowering = lowering
        self.body = body

    # -- items

    def is_same_everywhere(self, item: Tensor) -> bool:
        """Whether the item does not change from iteration to iteration."""
        if item.known is not None:
            return True
        if item.induction is not None:
            return False
        if item.tensor_list is not None:
            parts = [part for part in (item.tensor_list.item, item.tensor_list.stack) if part is not None]
            return item.tensor_list.change is None and all(self.is_same_everywhere(part) for part in parts)
        return self.lowering.builder.depth_of(self.lowering.value(item)) < self.body.depth

    def rows(self, item: Tensor, at: Induction) -> Later:
        """The items of all iterations along a new first axis, each where the index puts it."""
        if item.tensor_list is not None:
            return _no_rows
        trips = self.body.trips
        if item.induction is not None and item.induction.iteration is self.body.iteration:
            first, step = item.induction.offset, item.induction.scale
            if at.scale < 0:
                first, step = self._at_last(item.induction), -step
            known = numbered(self.lowering, first, step, trips, item.dtype)
            return lambda results: known
        if self.is_same_everywhere(item):
            return lambda results: repeated(self.lowering, item, trips)
        value = self.lowering.value(item)
        dims = [trips, *item.dims]
        source = self.body.rows_of(value, at)
        if source is not None:
            rows = source
            return lambda results: self.lowering.tensor(rows, item.dtype, dims)
        which = self.body.collect(value, item, backwards=at.scale < 0)
        return lambda results: self.lowering.tensor(results.stacks[which], item.dtype, dims)

    def last(self, item: Tensor) -> Later:
        """The item of the last iteration."""
        if item.induction is not None and item.induction.iteration is self.body.iteration:
            known = self.lowering.number(self._at_last(item.induction), item.dtype)
            return lambda results: known
        if self.is_same_everywhere(item):
            return lambda results: item
        which = self.body.last(self.lowering.value(item), item)
        return lambda results: self.lowering.tensor(results.states[which], item.dtype, item.dims)

    def _at_last(self, of: Induction) -> Dim:
        return plus(of.offset, plus(self.body.trips, -1), of.scale)

    def direction(self, tensors: Sequence[Tensor]) -> Induction:
        """The order in which tensors are stacked at the least cost: that of rows that one of them is an item of."""
        for tensor in tensors:
            source = self.body.source(tensor)
            if source is not None and source[1].scale == -1:
                return Induction(-1, plus(self.body.trips, -1), self.body.iteration)
        return Induction(1, self.lowering.dim(0), self.body.iteration)

    def once(self, operation: Operation, inputs: Sequence[Tensor], stacked: Sequence[int], at: Induction) -> Later:
        """The operation, once for all iterations: some of its inputs stacked along the batch."""
        rows = {index: self.rows(inputs[index], at) for index in stacked}

        def run(results: Results) -> Tensor:
            given = [
                merge_rows(self.lowering, rows[index](results)) if index in rows else tensor
                for index, tensor in enumerate(inputs)
            ]
            return self.lowering.lower(operation, given)[0]

        return run

    # -- lists

    def list_after(
        self, variable: ListVariable, argument: TensorList, result: TensorList, product: ItemProduct | None
    ) -> Later:
        """The list after the loop, where the body makes `result` of `argument`.

        Args:
            variable: The variable that holds the list.
            argument: The list as the body gets it.
            result: The list as the body leaves it.
            product: How the items can be made once the loop has ended, if they can.

        Raises:
            MustCarry: The body does more than to write, add to, push or pop one item an iteration, in turn.
        """
        made = self._list_after(variable, argument, result, product)
        return lambda results: lists.as_tensor(self.lowering, made(results))

    def _list_after(
        self, variable: ListVariable, argument: TensorList, result: TensorList, product: ItemProduct | None
    ) -> Callable[[Results], TensorList]:
        initial, change = variable.initial, result.change
        if result is argument:
            return lambda results: initial
        if result.is_unset and not variable.reads:
            return lambda results: result
        must_carry = MustCarry(variable, lists.item_shape(result))
        if change is None or change.base is not argument or initial.length is None:
            raise must_carry
        if change.kind is ChangeKind.POP and not variable.reads:
            left = plus(initial.length, self.body.trips, -1)
            if not self.lowering.sizes.reaches(left, 0):
                raise CannotLower("a list is emptied before the loop ends")
            return lambda results: lists.resize(initial, left)
        item, index, length = change.item, change.index, initial.length
        if change.kind is ChangeKind.PUSH and item is not None:
            at = Induction(1, length, self.body.iteration)
            index = Tensor(np.dtype(np.int32), ((),) * len(self.lowering.samples), induction=at)
            length = plus(length, self.body.trips)
        if item is None or index is None:
            raise must_carry
        if any(lists.same_index(self.lowering, read, index) is not True for read in variable.reads):
            raise must_carry
        if change.kind is ChangeKind.SET and index.number is not None and not variable.reads:
            at_once, last = index, self.last(item)
            return lambda results: lists.set_item(initial, at_once, last(results))
        span = None if index.induction is None else self.body.span(index.induction, length)
        if index.induction is None or span is None:
            raise must_carry
        adds = change.kind is ChangeKind.ADD and not initial.is_unset
        return self._filled(initial, item, index.induction, (span[0], length), adds, product)

    def _filled(
        self,
        initial: TensorList,
        item: Tensor,
        at: Induction,
        extent: tuple[Dim, Dim],
        adds: bool,
        product: ItemProduct | None,
    ) -> Callable[[Results], TensorList]:
        start, length = extent
        whole = not any(start) and length == self.body.trips
        inner, item = self._without_inner(item)
        if inner is not None and not whole:
            return lambda results: _no_list()
        if whole and not adds and self.is_same_everywhere(item):
            return lambda results: TensorList(item.dtype, length, item.shapes, initial.declared, item=item)
        rows = self.rows(item, at) if product is None else product.rows(self, at)

        def finish(results: Results) -> TensorList:
            made = rows(results)
            if adds:
                placed = _placed(self.lowering, lists.unset_like(initial), made, start, length)
                return lists.add_lists(self.lowering, [initial, lists.with_stack(initial, placed)])
            placed = _placed(self.lowering, initial, made, start, length)
            return TensorList(item.dtype, length, item.shapes, initial.declared, stack=placed, inner=inner)

        return finish

    def _without_inner(self, item: Tensor) -> tuple[TensorList | None, Tensor]:
        """For an item that is a list itself: what such lists have in common, and the item's own items as a stack."""
        if item.tensor_list is None:
            return None, item
        inner = lists.settled(self.lowering, item.tensor_list)
        # Three loops in one another keep lists of lists of lists.
        if inner.length is None or inner.inner is not None or inner.nested is not None:
            raise RaggedListsError
        settled = lists.as_tensor(self.lowering, inner)
        if self.is_same_everywhere(settled):
            return None, settled
        return inner, lists.stack(self.lowering, inner)


class ItemProduct:
    """The product that gives a list's items: once for all iterations, when the loop has ended."""

    def __init__(self, operation: Operation, inputs: Sequence[Tensor]) -> None:
        self.operation = operation
        self.inputs = inputs

    def rows(self, stacking: Stacking, at: Induction) -> Later:
        """The items along a new first axis."""
        merged = stacking.once(self.operation, self.inputs, [0], at)
        return lambda results: split_rows(stacking.lowering, merged(results), stacking.body.trips)


def _no_rows(results: Results) -> Tensor:
    raise CannotLower("a loop fills only a part of a list of lists")


def _no_list() -> TensorList:
    raise CannotLower("a loop fills only a part of a list of lists")


def _placed(lowering: Lowering, initial: TensorList, rows: Tensor, start: Dim, length: Dim) -> Tensor:
    """The stack of the list, that many items long, with these rows from index `start` on."""
    end = plus(start, rows.dim(0))
    after = plus(length, end, -1)
    if not any(start) and not any(after):
        return rows
    value = lowering.value(rows)
    parts = [value]
    if initial.is_unset:
        if any(start):
            parts.insert(0, unset_rows(lowering, rows, start))
        if any(after):
            parts.append(unset_rows(lowering, rows, after))
    else:
        parts = [
            *_kept_rows(lowering, initial, lowering.dim(0), start),
            value,
            *_kept_rows(lowering, initial, end, length),
        ]
    placed = lowering.builder.emit("Concat", *parts, axis=0)
    return lowering.tensor(placed, rows.dtype, [length, *rows.dims[1:]])


def _kept_rows(lowering: Lowering, of: TensorList, start: Dim, end: Dim) -> list[ir.Value]:
    """Items of a list as rows: one by one where they are few, since most lists start with one item set by hand."""
    count = static(plus(end, start, -1))
    if count is not None and count <= 2:
        indices = [lowering.number(plus(start, index), np.int32) for index in range(count)]
        items = [lists.get_item(lowering, of, index) for index in indices]
        return [lowering.reshape(lowering.value(item), [1, *item.dims]) for item in items]
    return [slice_rows(lowering, lowering.value(lists.stack(lowering, of)), start, end)]
