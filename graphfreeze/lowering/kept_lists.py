"""Lists that a loop keeps of a loop inside of it, one an iteration, for its gradient.

How many items each of them has may change from iteration to iteration. Then all items go into one array, one list
behind another, and where each starts and ends is stacked. Lists of one length, and of one item repeated, are stacked as
arrays are. Where the loop inside keeps lists itself, the arrays that hold them are kept like the items of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.loop_body import LoopBody, Results
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.tensor_list import KeptLists, TensorList

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["keep_list"]

Kept = Callable[[Results], KeptLists]
"""Makes, of what the loop gives, the lists of all iterations."""


def keep_list(lowering: Lowering, body: LoopBody, of: TensorList, outer: TensorList) -> Callable[[Results], TensorList]:
    """Keep this list of every iteration of an open loop.

    Args:
        lowering: The lowering.
        body: The loop's body.
        of: The list of the iteration.
        outer: The list that it is appended to.

    Returns:
        What makes the list of lists, of what the loop gives.
    """
    kept = _keep(lowering, body, lists.settled(lowering, of))

    def finish(results: Results) -> TensorList:
        nested, shape = kept(results), ((),) * len(lowering.samples)
        return TensorList(outer.dtype, None, shape, outer.declared, rows=nested.counted, nested=nested)

    return finish


def _keep(lowering: Lowering, body: LoopBody, done: TensorList) -> Kept:
    if done.nested is not None:
        return _keep_lists(lowering, body, done, done.nested)
    if done.rows is not None:
        assert done.shape is not None
        return _keep_rows(lowering, body, done, done.rows, Tensor(done.dtype, done.shape))
    if done.inner is None and (done.item is not None or done.length is None):
        return _keep_item(lowering, body, done)
    rows = done.stack if done.inner is not None and done.stack is not None else lists.stack(lowering, done)
    which = body.collect(lowering.value(rows), rows)

    def at(parts: Sequence[ir.Value], index: Tensor) -> TensorList:
        row = _row(lowering, parts[0], index, rows)
        return lists.with_stack(done, row) if done.inner is None else replace(done, stack=row)

    return lambda results: KeptLists([(results.stacks[which], rows)], at)


def _keep_item(lowering: Lowering, body: LoopBody, done: TensorList) -> Kept:
    item = done.item
    if item is not None and item.tensor_list is not None:
        return _keep_item_list(lowering, body, done, item.tensor_list)
    if item is None or item.known is not None or lowering.builder.depth_of(lowering.value(item)) < body.depth:
        return lambda results: KeptLists([], lambda parts, index: done)
    which = body.collect(lowering.value(item), item)

    def at(parts: Sequence[ir.Value], index: Tensor) -> TensorList:
        return replace(done, item=_row(lowering, parts[0], index, item))

    return lambda results: KeptLists([(results.stacks[which], item)], at)


def _keep_item_list(lowering: Lowering, body: LoopBody, done: TensorList, item: TensorList) -> Kept:
    kept = _keep(lowering, body, lists.settled(lowering, item))

    def finish(results: Results) -> KeptLists:
        inner = kept(results)

        def at(parts: Sequence[ir.Value], index: Tensor) -> TensorList:
            return replace(done, item=lists.as_tensor(lowering, inner.at(parts, index)))

        return KeptLists(inner.parts, at)

    return finish


def _keep_rows(lowering: Lowering, body: LoopBody, done: TensorList, rows: ir.Value, item: Tensor) -> Kept:
    kept = _keep_array(lowering, body, rows, item)

    def at(parts: Sequence[ir.Value], index: Tensor) -> TensorList:
        return replace(done, rows=_part(lowering, parts, index))

    return lambda results: KeptLists(kept(results), at)


def _keep_lists(lowering: Lowering, body: LoopBody, done: TensorList, nested: KeptLists) -> Kept:
    changes = [lowering.builder.depth_of(value) >= body.depth for value, _ in nested.parts]
    kept = [
        _keep_array(lowering, body, value, row) if changed else None
        for changed, (value, row) in zip(changes, nested.parts, strict=True)
    ]

    def at(parts: Sequence[ir.Value], index: Tensor) -> TensorList:
        left, found = list(parts), []
        for changed, (value, row) in zip(changes, nested.parts, strict=True):
            if changed:
                value, left = _part(lowering, left[:_ARRAYS], index), left[_ARRAYS:]
            found.append((value, row))
        lists_there = KeptLists(found, nested.at)
        return replace(done, rows=lists_there.counted, nested=lists_there)

    return lambda results: KeptLists([part for one in kept if one is not None for part in one(results)], at)


# -- arrays of a length that changes from iteration to iteration

_ARRAYS = 3
"""What one takes: the rows of all iterations, where those of each start, and where they end."""


def _keep_array(
    lowering: Lowering, body: LoopBody, rows: ir.Value, row: Tensor
) -> Callable[[Results], list[tuple[ir.Value, Tensor]]]:
    pool, start, end = body.append(rows, row)
    number = Tensor(np.dtype(np.int64), ((),) * len(lowering.samples))
    return lambda made: [(made.states[pool], row), (made.stacks[start], number), (made.stacks[end], number)]


def _part(lowering: Lowering, arrays: Sequence[ir.Value], index: Tensor) -> ir.Value:
    """The rows of one iteration."""
    rows, *ends = arrays
    emit, int64, at = lowering.builder.emit, lowering.builder.int64, lowering.value(index)
    span = [emit("Reshape", emit("Gather", end, at, axis=0), int64([1])) for end in ends]
    return emit("Slice", rows, *span, int64([0]))


def _row(lowering: Lowering, stacked: ir.Value, index: Tensor, like: Tensor) -> Tensor:
    """One row of what was collected."""
    value = lowering.builder.emit("Gather", stacked, lowering.value(index), axis=0)
    return lowering.tensor(value, like.dtype, like.dims)
