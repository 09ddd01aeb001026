"""The items of a list as a stack, along its first axis: read one, repeat, cut and fill up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.tensor import Dim, Induction, Tensor

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["repeated", "resized_rows", "row_at", "slice_rows", "unset_rows"]

_LARGEST_CONSTANT = 4096  # elements; larger stacks of equal items are made at run time


def row_at(lowering: Lowering, rows: Tensor, index: Tensor) -> Tensor:
    """The item at an index, gathered only where it follows neither from constants nor from what a loop scans."""
    if rows.constant is not None and index.constant is not None:
        return lowering.constant(rows.constant[int(index.constant)])
    if index.induction is not None:
        sequence = _affine(rows)
        induction = index.induction
        if sequence is not None:
            scale, offset = sequence
            made = Induction(scale * induction.scale, scale * induction.offset + offset, induction.iteration)
            return Tensor(rows.dtype, tuple(shape[1:] for shape in rows.shapes), induction=made)
        for loop in lowering.loops:
            item = loop.read(rows, induction) if loop.iteration is induction.iteration else None
            if item is not None:
                return lowering.tensor(item, rows.dtype, rows.dims[1:])
    value = lowering.builder.emit("Gather", lowering.value(rows), lowering.value(index), axis=0)
    return lowering.tensor(value, rows.dtype, rows.dims[1:])


def _affine(rows: Tensor) -> tuple[int, int] | None:
    """Scale and offset where the items are known integers `scale * index + offset`."""
    numbers = rows.constant
    if numbers is None or numbers.ndim != 1 or numbers.dtype.kind != "i" or not numbers.size:
        return None
    scale = int(numbers[1] - numbers[0]) if numbers.size > 1 else 0
    offset = int(numbers[0])
    return (scale, offset) if np.array_equal(numbers, np.arange(numbers.size) * scale + offset) else None


def repeated(lowering: Lowering, item: Tensor, times: int) -> Tensor:
    """The item that many times, along a new first axis."""
    if item.constant is not None and item.size * times <= _LARGEST_CONSTANT:
        return lowering.constant(np.repeat(item.constant[None], times, axis=0))
    dims: list[Dim | int] = [times, *item.dims]
    row = lowering.reshape(lowering.value(item), [1, *item.dims])
    return lowering.tensor(lowering.builder.emit("Expand", row, lowering.shape(dims)), item.dtype, dims)


def resized_rows(lowering: Lowering, rows: Tensor, length: int) -> Tensor:
    """The items cut off at a length, or filled up to it with zeros."""
    before = rows.shapes[0][0]
    dims: list[Dim | int] = [length, *rows.dims[1:]]
    if length <= before:
        return lowering.tensor(slice_rows(lowering, lowering.value(rows), 0, length), rows.dtype, dims)
    zeros = unset_rows(lowering, rows, length - before)
    return lowering.tensor(lowering.builder.emit("Concat", lowering.value(rows), zeros, axis=0), rows.dtype, dims)


def slice_rows(lowering: Lowering, rows: ir.Value, start: int, end: int) -> ir.Value:
    """The items from one index up to another."""
    int64 = lowering.builder.int64
    return lowering.builder.emit("Slice", rows, int64([start]), int64([end]), int64([0]))


def unset_rows(lowering: Lowering, like: Tensor, count: int) -> ir.Value:
    """That many zeros of the same shape."""
    zero = np.zeros((1,) * like.rank, like.dtype)
    return lowering.builder.emit("Expand", zero, lowering.shape([count, *like.dims[1:]]))
