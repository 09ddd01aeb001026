"""Lists that a loop keeps of a loop inside of it, one an iteration, for its gradient.

How many items each of them has may change from iteration to iteration. Then all items go into one array, one list
behind another, and where each starts and ends is stacked. Lists of one length, and of one item repeated, are stacked as
arrays are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering import lists
from graphfreeze.lowering.loop_body import LoopBody, Results
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.tensor_list import TensorList

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["keep_list"]

Kept = Callable[[Results], tuple[Callable[[Tensor], TensorList], ir.Value | None]]
"""Makes, of what the loop gives, the list of the iteration at an index, and something with a row for each iteration."""


def keep_list(lowering: Lowering, body: LoopBody, of: TensorList, outer: TensorList) -> Callable[[Results], TensorList]:
    """Keep this list of every iteration of an open loop.

    Args:
        lowering: The lowering.
        body: The loop's body.
        of: The list of the iteration.
        outer: The list that it is appended to.

    Returns:
        What makes the list of lists, of what the loop gives.

    Raises:
        CannotLower: It is itself a list of lists.
    """
    kept = _keep(lowering, body, lists.settled(lowering, of))

    def finish(results: Results) -> TensorList:
        nested, rows = kept(results)
        shape = ((),) * len(lowering.samples)
        return TensorList(outer.dtype, None, shape, outer.declared, rows=rows, nested=nested)

    return finish


def _keep(lowering: Lowering, body: LoopBody, done: TensorList) -> Kept:
    if done.nested is not None or done.inner is not None:
        raise CannotLower(
            "loops in three depths, for whose gradient lists of lists of lists are kept, run as often as data say; "
            "two depths are covered"
        )
    if done.rows is not None:
        return _keep_rows(lowering, body, done, done.rows)
    if done.item is not None or done.length is None:
        return _keep_item(lowering, body, done)
    rows = lists.stack(lowering, done)
    which = body.collect(lowering.value(rows), rows)

    def kept(results: Results) -> tuple[Callable[[Tensor], TensorList], ir.Value | None]:
        stacked = results.stacks[which]
        return lambda index: lists.with_stack(done, _row(lowering, stacked, index, rows)), stacked

    return kept


def _keep_item(lowering: Lowering, body: LoopBody, done: TensorList) -> Kept:
    item = done.item
    if item is None or item.known is not None or lowering.builder.depth_of(lowering.value(item)) < body.depth:
        return lambda results: (lambda index: done, None)
    which = body.collect(lowering.value(item), item)

    def kept(results: Results) -> tuple[Callable[[Tensor], TensorList], ir.Value | None]:
        stacked = results.stacks[which]
        return lambda index: replace(done, item=_row(lowering, stacked, index, item)), stacked

    return kept


def _keep_rows(lowering: Lowering, body: LoopBody, done: TensorList, rows: ir.Value) -> Kept:
    assert done.shape is not None
    pool, start, end = body.append(rows, Tensor(done.dtype, done.shape))
    number = Tensor(np.dtype(np.int64), ((),) * len(lowering.samples))

    def kept(results: Results) -> tuple[Callable[[Tensor], TensorList], ir.Value | None]:
        starts, ends, items = results.stacks[start], results.stacks[end], results.states[pool]

        def at(index: Tensor) -> TensorList:
            emit, int64 = lowering.builder.emit, lowering.builder.int64
            span = [lowering.value(_row(lowering, where, index, number)) for where in (starts, ends)]
            return replace(done, rows=emit("Slice", items, *(emit("Reshape", n, int64([1])) for n in span), int64([0])))

        return at, starts

    return kept


def _row(lowering: Lowering, stacked: ir.Value, index: Tensor, like: Tensor) -> Tensor:
    """One row of what was collected."""
    value = lowering.builder.emit("Gather", stacked, lowering.value(index), axis=0)
    return lowering.tensor(value, like.dtype, like.dims)
