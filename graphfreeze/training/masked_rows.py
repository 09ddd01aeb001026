"""Takes masks off rows whose frozen ones are dropped or set to zero anyway."""

from __future__ import annotations

import numpy as np

from graphfreeze.selection.slices import TrainedSlices
from graphfreeze.training.graph import Edge
from graphfreeze.training.insertions import Insertions, constant_of

__all__ = ["without_mask"]

_KEEP_ROWS = frozenset({"Identity", "Reshape"})


def without_mask(slices: TrainedSlices, rows: Edge, indices: Edge, insertions: Insertions) -> Edge:
    """Rows without a mask that is looked up by the same indices and true wherever a slice trains.

    What such a mask does to the other rows must make no difference. Rows without such a mask stay as they are.
    """
    return _unmasked(slices, rows, indices, insertions) or rows


def _unmasked(slices: TrainedSlices, rows: Edge, indices: Edge, insertions: Insertions) -> Edge | None:
    """The rows without the mask; None where there is none."""
    operation = rows.producer
    if operation is None:
        return None
    inputs = list(operation.inputs)
    summed = inputs[0].producer if operation.type == "Reshape" else None
    if summed is not None and summed.type == "Sum" and rows.shape == summed.inputs[0].shape is not None:
        # What undoes a broadcast; the shapes say that there was none.
        return _unmasked(slices, summed.inputs[0], indices, insertions)
    if operation.type in _KEEP_ROWS:
        given = [_unmasked(slices, inputs[0], indices, insertions)]
    elif operation.type == "ConcatV2":
        along = _core(indices).producer
        if along is None or along.type != "ConcatV2" or len(along.inputs) != len(inputs):
            return None
        pairs = zip(inputs[:-1], along.inputs[:-1], strict=True)
        given = [_unmasked(slices, *pair, insertions) for pair in pairs]
    else:
        masked = inputs[:2] if operation.type == "SelectV2" else inputs if operation.type == "Mul" else []
        for mask, other in zip(masked, masked[::-1], strict=True):
            if other.shape == rows.shape and other.shape is not None and _is_looked_up_mask(slices, mask, indices):
                return other
        return None
    if all(edge is None for edge in given):
        return None
    inputs[: len(given)] = [new or old for new, old in zip(given, inputs, strict=False)]
    return insertions.behind(operation).again(operation, inputs, rows.shape)


def _is_looked_up_mask(slices: TrainedSlices, edge: Edge, indices: Edge) -> bool:
    operation = _core(edge).producer
    if operation is None or operation.type != "GatherV2" or _core(operation.inputs[1]) is not _core(indices):
        return False
    batch, axis = operation.attributes.get("batch_dims"), constant_of(operation.inputs[2])
    table = constant_of(operation.inputs[0])
    if table is None or axis is None or int(axis) or (batch is not None and batch.i) or table.ndim < 1:
        return False
    return len(table) == slices.size and bool(np.all(slices.cut(table, 0) == 1))


def _core(edge: Edge) -> Edge:
    """What an edge is in another shape."""
    while edge.producer is not None and edge.producer.type in ("Identity", "Reshape", "StopGradient"):
        edge = edge.producer.inputs[0]
    return edge
