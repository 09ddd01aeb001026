"""The items of a list as a stack, along its first axis: read one, number, repeat, cut and fill up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.lowering.induction import scaled
from graphfreeze.lowering.numbers import plus, static
from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Dim, Induction, Tensor
from graphfreeze.training.graph import Edge, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["numbered", "repeated", "resized_rows", "row_at", "slice_rows", "unset_rows"]

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
            made = scaled(induction, scale)
            made = Induction(made.scale, plus(made.offset, offset), made.iteration)
            return Tensor(rows.dtype, tuple(shape[1:] for shape in rows.shapes), induction=made)
        for loop in lowering.loops:
            item = loop.read(rows, induction) if loop.iteration is induction.iteration else None
            if item is not None:
                return lowering.tensor(item, rows.dtype, rows.dims[1:])
    value = lowering.builder.emit("Gather", lowering.value(rows), lowering.value(index), axis=0)
    return lowering.tensor(value, rows.dtype, rows.dims[1:])


def _affine(rows: Tensor) -> tuple[int, Dim] | None:
    """Scale and offset where the items are known integers `scale * index + offset`."""
    if rows.origin is not None and rows.origin[0].type == "Range":
        # As many as sizes say: that they are such integers at every sample would not tell that they are at every size.
        start, step = rows.origin[1][0].number, rows.origin[1][2].number
        scale = None if step is None else static(step)
        return None if start is None or scale is None else (scale, start)
    numbers = rows.constant
    if numbers is None or numbers.ndim != 1 or numbers.dtype.kind != "i" or not numbers.size:
        return None
    scale = int(numbers[1] - numbers[0]) if numbers.size > 1 else 0
    offset = int(numbers[0])
    affine = np.array_equal(numbers, np.arange(numbers.size) * scale + offset)
    return (scale, (offset,) * len(rows.shapes)) if affine else None


def numbered(lowering: Lowering, first: Dim, step: int, count: Dim, dtype: np.dtype[Any]) -> Tensor:
    """That many numbers as rows, from the first one on."""
    number, start = static(count), static(first)
    if number is not None and start is not None:
        return lowering.constant((start + step * np.arange(number)).astype(dtype))
    if not step:
        return repeated(lowering, lowering.number(first, dtype), count)
    ends = [first, plus(first, count, step), lowering.dim(step)]
    index = attr_value_pb2.AttrValue(type=tf.as_dtype(dtype).as_datatype_enum)
    made = Edge(lowering.builder.scope, tf.as_dtype(dtype), None)
    operation = Operation("Range", made.name, [], [made], {"Tidx": index})
    return lowering.lower(operation, [lowering.number(end, dtype) for end in ends])[0]


def repeated(lowering: Lowering, item: Tensor, times: Dim) -> Tensor:
    """The item that many times, along a new first axis."""
    number = static(times)
    if item.constant is not None and number is not None and item.size * number <= _LARGEST_CONSTANT:
        return lowering.constant(np.repeat(item.constant[None], number, axis=0))
    dims = [times, *item.dims]
    row = lowering.reshape(lowering.value(item), [1, *item.dims])
    return lowering.tensor(lowering.builder.emit("Expand", row, lowering.shape(dims)), item.dtype, dims)


def resized_rows(lowering: Lowering, rows: Tensor, length: Dim) -> Tensor:
    """The items cut off at a length, or filled up to it with zeros.

    Raises:
        CannotLower: Which of them it is depends on the sizes.
    """
    before = rows.dim(0)
    dims = [length, *rows.dims[1:]]
    if lowering.sizes.reaches(before, length):
        return lowering.tensor(slice_rows(lowering, lowering.value(rows), lowering.dim(0), length), rows.dtype, dims)
    if not lowering.sizes.reaches(length, before):
        raise CannotLower("whether a TensorList is cut off or filled up follows the batch, or the length of sequences")
    zeros = unset_rows(lowering, rows, plus(length, before, -1))
    return lowering.tensor(lowering.builder.emit("Concat", lowering.value(rows), zeros, axis=0), rows.dtype, dims)


def slice_rows(lowering: Lowering, rows: ir.Value, start: Dim, end: Dim) -> ir.Value:
    """The items from one index up to another."""
    span = lowering.shape([start]), lowering.shape([end])
    return lowering.builder.emit("Slice", rows, *span, lowering.builder.int64([0]))


def unset_rows(lowering: Lowering, like: Tensor, count: Dim) -> ir.Value:
    """That many zeros of the same shape."""
    zero = np.zeros((1,) * like.rank, like.dtype)
    return lowering.builder.emit("Expand", zero, lowering.shape([count, *like.dims[1:]]))
