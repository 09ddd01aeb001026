"""The gradient of a lookup as TensorFlow gives it to an optimizer: rows, and the index of each (`tf.IndexedSlices`).

Rows with the same index are not added up before the optimizer has them. Where it squares a gradient, for Adam's second
moment or a norm, it squares each of them, which is not the square of their sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.arguments import Configured
from graphfreeze.training.graph import Edge
from graphfreeze.training.insertions import Insertions
from graphfreeze.training.masked_rows import without_mask
from graphfreeze.training.sliced_reads import SlicedVariable

__all__ = ["cut_rows", "cut_rows_in_graph", "takes_rows"]

_LINEAR = frozenset({"lion", "sgd"})
"""Optimizers to which equal rows are as good as their sum."""
_NOT_LINEAR = ("clipnorm", "clipvalue", "global_clipnorm")


def takes_rows(optimizer: Configured) -> bool:
    """Whether an optimizer makes something else of rows than of their sum.

    What accumulates gradients adds them up as a whole. Without an epsilon, what is looked up in no row is 0 / 0; Keras
    looks for that in a way of its own, and with the whole gradient it comes out the same.
    """
    given = optimizer.arguments
    if given.get("gradient_accumulation_steps") or given.get("epsilon") == 0:
        return False
    return optimizer.name not in _LINEAR or any(given.get(argument) is not None for argument in _NOT_LINEAR)


def cut_rows(
    slices: TrainedSlices, rows: npt.NDArray[Any], indices: npt.NDArray[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The rows and indices of the trained slices. Those of frozen slices are zero, and go to the first one."""
    if slices.axis:
        return slices.cut(rows), indices
    positions = np.zeros(slices.size, indices.dtype)
    positions[slices.indices] = np.arange(len(slices))
    trains = np.zeros(slices.size, np.bool_)
    trains[slices.indices] = True
    chosen = trains[indices].reshape(-1, *[1] * (rows.ndim - 1))
    return np.where(chosen, rows, np.zeros((), rows.dtype)), positions[indices]


def cut_rows_in_graph(variable: SlicedVariable, rows: Edge, indices: Edge, insertions: Insertions) -> tuple[Edge, Edge]:
    """The same in a graph."""
    name, slices, place = f"{variable.name}/trained", variable.slices, insertions.last()
    # What a branch gives has no known shape.
    rows.shape = (*(rows.shape or (None,))[:1], *variable.shape[1:])
    indices.shape = indices.shape or (None,)
    if slices.axis:
        return place.select(rows, slices.axis, slices.indices, name), indices
    rows = without_mask(slices, rows, indices, insertions)
    position = variable.positions.of(indices)
    last, first = (place.constant(np.int32(number), name) for number in (len(slices) - 1, 0))
    trains = place.emit("LessEqual", name, [position, last], indices.shape, T=tf.int32)
    position = place.emit("SelectV2", name, [trains, position, first], indices.shape, T=tf.int32)
    if indices.dtype != tf.int32:
        position = place.emit("Cast", name, [position], indices.shape, SrcT=tf.int32, DstT=indices.dtype)
    others = (1,) * (len(variable.shape) - 1)
    sizes = place.constant(np.array([-1, *others], np.int32), name)
    column = (*indices.shape, *others)
    trains = place.emit("Reshape", name, [trains, sizes], column, T=tf.bool, Tshape=tf.int32)
    zero = place.constant(np.zeros((), rows.dtype.as_numpy_dtype), name)
    return place.emit("SelectV2", name, [trains, rows, zero], rows.shape, T=rows.dtype), position
