"""Elements picked by a mask, or because they are new. How many these are, only run time knows."""

from __future__ import annotations

import numpy as np

from graphfreeze.lowering.picked import picked_size, sized
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Layout, Tensor


@sized("Where")
def where(node: Node) -> list[Tensor]:
    """The places of the elements that are not zero, a row for each."""
    source = node.inputs[0]
    if not source.rank:
        raise CannotLower("a number; arrays are covered")
    places = node.emit("Transpose", node.emit("NonZero", node.value(source)), perm=[1, 0])
    rows = picked_size(node.lowering, places, 0)
    return [Tensor(np.dtype(np.int64), tuple((row, source.rank) for row in rows), values={Layout.PLAIN: places})]


_UNIQUE = tuple(map(np.dtype, (np.float32, np.float64, np.int8, np.int64)))
"""What onnxruntime has kernels of ONNX's Unique for."""


@sized("Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2")
def unique(node: Node) -> list[Tensor]:
    """Each different element once, in the order in which they come first, where each element went, and how many did."""
    source, lowering = node.inputs[0], node.lowering
    axis = 0
    if len(node.inputs) > 1:
        axes = node.inputs[1].constant
        if axes is None:
            raise CannotLower("an axis that is computed at run time; a constant axis is covered")
        axis = int(axes.reshape(-1)[0]) % source.rank if axes.size else 0
    value = node.value(source)
    if source.dtype not in _UNIQUE:
        value = node.cast(value, np.float32 if source.dtype.kind == "f" else np.int64)
    found, _, places, counts = node.emit_many("Unique", value, outputs=4, axis=axis, sorted=0)
    count = picked_size(lowering, found, axis)
    dims = source.dims
    dims[axis] = count
    numbers = np.dtype(node.attribute("out_idx").as_numpy_dtype)
    results = [
        lowering.tensor(node.cast(found, source.dtype), source.dtype, dims),
        lowering.tensor(node.cast(places, numbers), numbers, [source.dim(axis)]),
        lowering.tensor(node.cast(counts, numbers), numbers, [count]),
    ]
    return results[: len(node.operation.outputs)]
