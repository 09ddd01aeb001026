"""Broadcast tensors, which remember what they are a broadcast of: elementwise operations work on that instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from graphfreeze.lowering.tensor import Dim, Layout, Tensor

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["broadcast", "broadcast_dims"]


def broadcast_dims(tensors: list[Tensor]) -> tuple[tuple[int, ...], ...]:
    """The shape that the tensors broadcast to, at each sample batch size."""
    samples = range(len(tensors[0].shapes))
    return tuple(
        tuple(int(size) for size in np.broadcast_shapes(*(tensor.shapes[sample] for tensor in tensors)))
        for sample in samples
    )


def broadcast(lowering: Lowering, source: Tensor, output: Tensor) -> Tensor:
    """Broadcast the source to the output's shape, in every layout that costs the source nothing.

    Which of them is needed, if any, shows later; the others are pruned.

    Args:
        lowering: The graph that is being lowered.
        source: A tensor with a value.
        output: A tensor with dtype and shapes only; it gets values, and `narrow`.
    """
    if source.shapes == output.shapes:
        return source
    narrow = _pad(lowering, source, output.rank)
    for layout in list(Layout) if output.rank > 2 else [Layout.PLAIN]:
        if _is_free(narrow, layout):
            permutation = layout.permutation(output.rank)
            size = lowering.shape([output.dim(axis) for axis in permutation])
            output.values[layout] = lowering.builder.emit("Expand", lowering.value(narrow, layout), size)
    output.narrow = narrow
    return output


def _pad(lowering: Lowering, source: Tensor, rank: int) -> Tensor:
    """The source with axes of size 1 put before its own."""
    missing = rank - source.rank
    if not missing:
        return source
    constant = source.constant
    if constant is not None:
        return lowering.constant(constant.reshape((1,) * missing + constant.shape))
    one: Dim = (1,) * len(lowering.samples)
    dims = [one] * missing + source.dims
    return lowering.tensor(lowering.reshape(lowering.value(source), dims), source.dtype, dims)


def _is_free(narrow: Tensor, layout: Layout) -> bool:
    """Whether the tensor has the layout, or only axes of size 1 would move."""
    if layout in narrow.values or narrow.constant is not None:
        return True
    long = [axis for axis in range(narrow.rank) if set(narrow.dim(axis)) != {1}]
    return any(
        [axis for axis in held.permutation(narrow.rank) if axis in long]
        == [axis for axis in layout.permutation(narrow.rank) if axis in long]
        for held in (list(narrow.values) or [Layout.PLAIN])
    )
