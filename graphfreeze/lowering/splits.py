"""Splits a tensor into parts, by nodes with few outputs each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import onnx_ir as ir

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["MOST_OUTPUTS", "emit_split"]

MOST_OUTPUTS = 7
"""A kernel of WebGPU has at least eight buffers, one of them the input. Nodes with more outputs may not run there."""


def emit_split(
    node: Node, value: ir.Value, sizes: Sequence[Dim | int], axis: int, *, most: int = MOST_OUTPUTS
) -> list[ir.Value]:
    """The parts along an axis. Where there are many, their groups come first, which copies the tensor once more.

    Args:
        node: What is lowered.
        value: The tensor.
        sizes: Of the parts along the axis; any may follow the batch.
        axis: The axis.
        most: How many outputs a node may have.
    """
    if len(sizes) == 1:
        return [value]
    if len(sizes) <= most:
        return node.emit_many("Split", value, node.vector(sizes), outputs=len(sizes), axis=axis)
    count = -(-len(sizes) // most)
    bounds = [len(sizes) * index // count for index in range(count + 1)]
    groups = [sizes[start:end] for start, end in pairwise(bounds)]
    pieces = emit_split(node, value, [_total(group) for group in groups], axis, most=most)
    return [
        part
        for piece, group in zip(pieces, groups, strict=True)
        for part in emit_split(node, piece, group, axis, most=most)
    ]


def _total(sizes: Sequence[Dim | int]) -> Dim | int:
    numbers = [size for size in sizes if isinstance(size, int)]
    dims = [size for size in sizes if not isinstance(size, int)]
    return sum(numbers) if not dims else tuple(sum(column) + sum(numbers) for column in zip(*dims, strict=True))
