"""Convolutions with a kernel whose size only run time knows: a blur whose radius is drawn at random.

The output is as large as the padding SAME makes it, whatever the kernel is; how much padding that takes is computed at
run time. Each direction is then one correlation of something padded with something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Slide
from graphfreeze.lowering.correlation import correlate
from graphfreeze.lowering.open_window import shared_padding
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["OpenConvolution"]

_TO_THE_START = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class OpenConvolution:
    """The convolution of x [batch, inputs, *size] with w [outputs, inputs/groups, *kernel]: [batch, outputs, *output].

    Attributes:
        node: The operation that is lowered.
        slide: How the filter slides.
        kernel: Its spatial sizes.
        batch: The batch dimension.
        inputs: The channels of x.
        outputs: The channels of the result.
        groups: Into how many independent convolutions the channels are split.
    """

    node: Node
    slide: Slide
    kernel: Sequence[Dim]
    batch: Dim
    inputs: int
    outputs: int
    groups: int = 1

    def __post_init__(self) -> None:
        if self.node.attribute("padding") != "SAME":
            raise CannotLower(
                "the size of its filter is known only at run time; with the padding SAME, or with a filter of fixed "
                "size, it would be covered"
            )

    def forward(self, x: ir.Value, w: ir.Value) -> ir.Value:
        """The convolution."""
        dims: list[Dim | int] = [self.batch, self.outputs, *self.slide.output]
        return correlate(self.node, self._padded(x), w, dims, self.slide.strides, self.slide.dilations, self.groups)

    def input_gradient(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of x: of dy, with zeros between its positions, and the filter turned round."""
        node = self.node
        last = node.int64([n - 1 - reach for n, reach in zip(self.slide.size, self._reach, strict=True)])
        low = node.emit("Sub", node.emit("Sub", self._extent, node.int64([1])), self._padding[0])
        apart = self._pad(self._move_apart(dy), low, node.emit("Add", last, self._padding[0]))
        dims: list[Dim | int] = [self.batch, self.inputs, *self.slide.size]
        ones = (1,) * len(self.slide.size)
        return correlate(node, apart, self._turned(w), dims, ones, self.slide.dilations, self.groups)

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of w: of x and dy, with the images as channels. [outputs, inputs/groups, *kernel]."""
        node, depth, spatial = self.node, self.inputs // self.groups, range(3, 3 + len(self.slide.size))
        met = node.emit("Add", node.int64(self._reach), self._extent)
        axes = node.int64([axis - 1 for axis in spatial])
        x = node.emit("Slice", self._padded(x), node.int64([0] * len(self.slide.size)), met, axes)
        sizes = node.emit("Shape", x, start=2)
        apart = node.emit("Reshape", x, self._vector([self.batch, self.groups, depth], sizes))
        images = node.transpose(apart, [2, 1, 0, *spatial])
        images = node.emit("Reshape", images, self._vector([depth, -1], sizes))
        dims: list[Dim | int] = [depth, self.outputs, *self.kernel]
        rows = node.transpose(dy, [1, 0, *(axis - 1 for axis in spatial)])
        found = correlate(node, images, rows, dims, self.slide.dilations, self.slide.strides, self.groups)
        return node.transpose(found, [1, 0, *(axis - 1 for axis in spatial)])

    @property
    def _reach(self) -> list[int]:
        """The input positions from the first of the window to the last."""
        return [(n - 1) * stride for n, stride in zip(self.slide.output, self.slide.strides, strict=True)]

    # -- sizes at run time, as int64 vectors of an element for each spatial axis

    @property
    def _extent(self) -> ir.Value:
        """The input positions from the first element of the filter to the last."""
        node, one = self.node, self.node.int64([1])
        apart = node.emit("Mul", node.emit("Sub", node.vector(self.kernel), one), node.int64(self.slide.dilations))
        return node.emit("Add", apart, one)

    @property
    def _padding(self) -> tuple[ir.Value, ir.Value]:
        """Before and after."""
        node = self.node
        beyond = node.int64([reach - n for reach, n in zip(self._reach, self.slide.size, strict=True)])
        return shared_padding(node, node.emit("Add", self._extent, beyond))

    def _vector(self, dims: Sequence[Dim | int], sizes: ir.Value) -> ir.Value:
        return self.node.emit("Concat", self.node.vector(dims), sizes, axis=0)

    # -- emitting

    def _padded(self, x: ir.Value) -> ir.Value:
        return self._pad(x, *self._padding)

    def _pad(self, x: ir.Value, low: ir.Value, high: ir.Value) -> ir.Value:
        none = self.node.int64([0, 0])
        return self.node.emit("Pad", x, self.node.emit("Concat", none, low, none, high, axis=0))

    def _move_apart(self, dy: ir.Value) -> ir.Value:
        """Gradients with `stride - 1` zeros between two positions."""
        node, rank = self.node, len(self.slide.output)
        if max(self.slide.strides) == 1:
            return dy
        alone = [size for n in self.slide.output for size in (n, 1)]
        behind = [size for stride in self.slide.strides for size in (0, stride - 1)]
        apart = node.reshape(dy, [self.batch, self.outputs, *alone])
        apart = node.emit("Pad", apart, node.int64([0] * (4 + 2 * rank) + behind))
        reached = [n * stride for n, stride in zip(self.slide.output, self.slide.strides, strict=True)]
        value = node.reshape(apart, [self.batch, self.outputs, *reached])
        ends = node.int64([reach + 1 for reach in self._reach])
        return node.emit("Slice", value, node.int64([0] * rank), ends, node.int64(range(2, 2 + rank)))

    def _turned(self, w: ir.Value) -> ir.Value:
        """The filter from its end to its start, from outputs to inputs: [inputs, outputs/groups, *kernel]."""
        node, rank, depth = self.node, len(self.slide.size), self.inputs // self.groups
        back: list[Any] = [[-1] * rank, [_TO_THE_START] * rank, range(2, 2 + rank), [-1] * rank]
        w = node.emit("Slice", w, *map(node.int64, back))
        if self.groups == 1:
            return node.transpose(w, [1, 0, *range(2, 2 + rank)])
        apart = node.reshape(w, [self.groups, self.outputs // self.groups, depth, *self.kernel])
        return node.reshape(
            node.transpose(apart, [0, 2, 1, *range(3, 3 + rank)]),
            [self.inputs, self.outputs // self.groups, *self.kernel],
        )
