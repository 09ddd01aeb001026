"""Depthwise convolutions as sums over the taps, with the channels last.

onnxruntime's Conv and ConvTranspose take each channel of each image on its own. Where a channel has few positions, they
spend their time on getting started; with the channels last, a tap is one product of long rows. The gradient of the
filter, which has no operator, gains from that at any size that networks end in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import prod

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Sizes, Window
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.splits import emit_split
from graphfreeze.lowering.tensor import Dim

__all__ = ["DepthwiseTaps"]

FEW_POSITIONS = 16
"""Up to here the taps beat Conv and ConvTranspose."""
FEW_POSITIONS_OF_FILTER_GRADIENT = 200
"""Up to here, and wherever the taps are not neighbours, rows of channels beat rows of positions."""


@dataclass(frozen=True, slots=True)
class DepthwiseTaps:
    """A depthwise convolution with one filter for each channel: x [batch, channels, *size], w [channels, 1, *kernel].

    Attributes:
        node: The operation that is lowered.
        window: How the filter slides.
        batch: The batch dimension.
        channels: How many there are.
    """

    node: Node
    window: Window
    batch: Dim
    channels: int

    @property
    def suits_forward(self) -> bool:
        """Whether this form is the fastest one for the convolution."""
        return self.window.positions <= FEW_POSITIONS and _none_negative(self._pads)

    @property
    def suits_input_gradient(self) -> bool:
        """Whether this form is the fastest one for the gradient of the input."""
        return prod(self.window.size) <= FEW_POSITIONS and _none_negative(self._gradient_pads)

    @property
    def suits_filter_gradient(self) -> bool:
        """Whether this form is the fastest one for the gradient of the filter."""
        window = self.window
        is_small = window.positions <= FEW_POSITIONS_OF_FILTER_GRADIENT or max(window.strides) > 1
        return is_small and _none_negative(self._pads)

    def forward(self, x: ir.Value, w: ir.Value) -> ir.Value:
        """The convolution: [batch, channels, *output]."""
        window = self.window
        padded = self._pad(self._channels_last(x, window.size), self._pads)
        starts = {index: self._offset(tap) for index, tap in self._taps.items()}
        total = self._weighted_sum(padded, w, starts, window.output, window.strides)
        return self._channels_first(total, window.output)

    def input_gradient(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of x: each tap's share of dy, whose positions are first moved apart by the strides."""
        window = self.window
        apart = self._pad(self._move_apart(self._channels_last(dy, window.output)), self._gradient_pads)
        reach = [extent - 1 for extent in window.extent]
        starts = {
            index: [r - offset for r, offset in zip(reach, self._offset(tap), strict=True)]
            for index, tap in self._taps.items()
        }
        total = self._weighted_sum(apart, w, starts, window.size, (1,) * len(window.size))
        return self._channels_first(total, window.size)

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of w, [channels, taps]: per tap, the sum of products over images and positions."""
        node, window = self.node, self.window
        padded = self._pad(self._channels_last(x, window.size), self._pads)
        dy = self._channels_last(dy, window.output)
        over = node.int64(range(1 + len(window.size)))
        nothing = node.lowering.builder.constant(np.zeros((1, self.channels), node.dtype))
        sums = [nothing] * len(window.taps)
        for index, tap in self._taps.items():
            met = self._slice(padded, self._offset(tap), window.output, window.strides)
            total = node.emit("ReduceSum", node.emit("Mul", met, dy), over, keepdims=0)
            sums[index] = node.reshape(total, [1, self.channels])
        together = sums[0] if len(sums) == 1 else node.emit("Concat", *sums, axis=0)
        return node.transpose(together, [1, 0])

    # -- sizes

    @property
    def _taps(self) -> dict[int, Sizes]:
        """The taps that meet something but padding, by their numbers. One does: some window has elements."""
        window = self.window
        axes = list(zip(window.strides, window.dilations, window.before, window.size, window.output, strict=True))

        def meets(tap: Sizes) -> bool:
            return all(
                any(0 <= o * stride + t * dilation - before < size for o in range(output))
                for t, (stride, dilation, before, size, output) in zip(tap, axes, strict=True)
            )

        return {index: tap for index, tap in enumerate(window.taps) if meets(tap)}

    @property
    def _pads(self) -> tuple[Sizes, Sizes]:
        return self.window.before, tuple(max(after, 0) for after in self.window.after)

    @property
    def _gradient_pads(self) -> tuple[Sizes, Sizes]:
        """What dy, moved apart, needs before and after, so that every tap meets `size` positions of it."""
        window = self.window
        low = tuple(extent - 1 - before for extent, before in zip(window.extent, window.before, strict=True))
        axes = zip(window.size, window.extent, low, window.output, window.strides, strict=True)
        return low, tuple(size + extent - 1 - first - n * stride for size, extent, first, n, stride in axes)

    def _offset(self, tap: Sizes) -> list[int]:
        return [t * dilation for t, dilation in zip(tap, self.window.dilations, strict=True)]

    # -- emitting

    def _weighted_sum(
        self, x: ir.Value, w: ir.Value, starts: Mapping[int, Sequence[int]], length: Sizes, strides: Sizes
    ) -> ir.Value:
        node, count = self.node, len(self.window.taps)
        rows = node.transpose(node.reshape(w, [self.channels, count]), [1, 0])
        weights = emit_split(node, rows, [1] * count, 0)
        shape = [1] * (1 + len(length)) + [self.channels]
        parts = [
            node.emit("Mul", self._slice(x, start, length, strides), node.reshape(weights[index], shape))
            for index, start in starts.items()
        ]
        return reduce(partial(node.emit, "Add"), parts)

    def _slice(self, x: ir.Value, start: Sequence[int], length: Sizes, strides: Sizes) -> ir.Value:
        node = self.node
        stops = [s + (n - 1) * step + 1 for s, n, step in zip(start, length, strides, strict=True)]
        axes = range(1, 1 + len(length))
        return node.emit("Slice", x, node.int64(start), node.int64(stops), node.int64(axes), node.int64(strides))

    def _pad(self, x: ir.Value, pads: tuple[Sizes, Sizes]) -> ir.Value:
        low, high = pads
        return self.node.emit("Pad", x, self.node.int64([0, *low, 0, 0, *high, 0])) if any(low + high) else x

    def _move_apart(self, dy: ir.Value) -> ir.Value:
        """Gradients with zeros between its positions: [batch, *(output * strides), channels]."""
        node, window = self.node, self.window
        if max(window.strides) == 1:
            return dy
        alone = [size for n in window.output for size in (n, 1)]
        behind = [size for stride in window.strides for size in (0, stride - 1)]
        apart = node.reshape(dy, [self.batch, *alone, self.channels])
        padded = node.emit("Pad", apart, node.int64([0] * (2 + len(alone)) + [0, *behind, 0]))
        reached = [n * stride for n, stride in zip(window.output, window.strides, strict=True)]
        return node.reshape(padded, [self.batch, *reached, self.channels])

    # The positions are flattened around a transposition: onnxruntime moves one of four axes to where it undoes another,
    # and the channels would be first again.

    def _channels_last(self, x: ir.Value, size: Sizes) -> ir.Value:
        rows = self.node.reshape(x, [self.batch, self.channels, prod(size)])
        return self.node.reshape(self.node.transpose(rows, [0, 2, 1]), [self.batch, *size, self.channels])

    def _channels_first(self, x: ir.Value, size: Sizes) -> ir.Value:
        rows = self.node.reshape(x, [self.batch, prod(size), self.channels])
        return self.node.reshape(self.node.transpose(rows, [0, 2, 1]), [self.batch, self.channels, *size])


def _none_negative(pads: tuple[Sizes, Sizes]) -> bool:
    return min(pads[0] + pads[1], default=0) >= 0
