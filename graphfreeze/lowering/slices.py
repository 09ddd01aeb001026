"""Slices by begin, end and stride, normalised at every sample batch size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim, Layout

__all__ = ["Span", "emit_slice"]

_TO_THE_END = np.iinfo(np.int64).max
_TO_THE_START = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Span:
    """What a slice takes of one axis: `count` elements from `start` in steps of `step`, at each sample batch size."""

    start: Dim
    count: Dim
    step: int

    @property
    def stop(self) -> Dim:
        """Just behind the last element; -1 before the first one."""
        return tuple(start + count * self.step for start, count in zip(self.start, self.count, strict=True))

    def is_whole(self, dim: Dim) -> bool:
        """Whether it takes the whole axis as it is."""
        return self.step == 1 and not any(self.start) and self.count == dim


def emit_slice(node: Node, value: ir.Value, spans: Mapping[int, Span], dims: list[Dim], layout: Layout) -> ir.Value:
    """Emit the Slice that takes these spans of a value in a layout; `spans` and `dims` count axes as TensorFlow."""
    spans = {axis: span for axis, span in spans.items() if not span.is_whole(dims[axis])}
    if not spans:
        return value
    starts, ends = [], []
    for axis, span in spans.items():
        start, end = _bounds(span, dims[axis])
        starts.append(start)
        ends.append(end)
    axes = node.int64([layout.axis(axis, len(dims)) for axis in spans])
    steps = [span.step for span in spans.values()]
    last = [node.int64(steps)] if set(steps) != {1} else []
    return node.emit("Slice", value, node.vector(starts), node.vector(ends), axes, *last)


def _bounds(span: Span, dim: Dim) -> tuple[Dim, Dim]:
    """Start and end as ONNX takes them; ends of the axis as sentinels, so that they hold at every batch size."""
    many = len(dim)
    if span.step > 0:
        to_end = all(stop >= size for stop, size in zip(span.stop, dim, strict=True))
        return span.start, (_TO_THE_END,) * many if to_end else span.stop
    from_end = all(start == size - 1 for start, size in zip(span.start, dim, strict=True))
    to_start = all(stop < 0 for stop in span.stop)
    return (
        (_TO_THE_END,) * many if from_end else span.start,
        (_TO_THE_START,) * many if to_start else span.stop,
    )
