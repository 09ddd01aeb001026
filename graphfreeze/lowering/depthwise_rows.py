"""The gradient of a depthwise filter as one matrix product for each channel and row of the filter.

For a row of the filter, the rows of the image that it meets are multiplied with the rows of dy, all columns of the one
with all of the other; a tap's gradient is then the sum along a diagonal. Most products are for nothing, but they are
faster than a pass over the images for each tap, until rows get long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Window, times
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["DepthwiseRows"]

FEWEST_POSITIONS = 100
"""Up to here passes over the images, with the channels last, are as fast."""
COLUMNS_FOR_A_TAP = 11
"""Up to that many columns of the image for each column of the filter the products pay."""


@dataclass(frozen=True, slots=True)
class DepthwiseRows:
    """A depthwise convolution of images with one filter for each channel: x [batch, channels, height, width].

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
    def suits_filter_gradient(self) -> bool:
        """Whether this form is the fastest one for the gradient of the filter."""
        window = self.window
        is_neighbouring = max(window.strides) == 1 and min(window.before) >= 0
        is_sized = window.positions >= FEWEST_POSITIONS and window.size[1] <= COLUMNS_FOR_A_TAP * window.kernel[1]
        return len(window.size) == 2 and is_neighbouring and is_sized

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of w, [channels, taps]."""
        node, window = self.node, self.window
        height, width = window.output
        x, dy = (node.transpose(value, [1, 0, 2, 3]) for value in (x, dy))
        before, after = window.before[0], max(window.after[0], 0)
        if before + after:
            x = node.emit("Pad", x, node.int64([0, 0, before, 0, 0, 0, after, 0]))
        right = node.reshape(dy, [self.channels, times(self.batch, height), width])
        parts = []
        for row in range(window.kernel[0]):
            start = row * window.dilations[0]
            met = node.emit("Slice", x, node.int64([start]), node.int64([start + height]), node.int64([2]))
            left = node.reshape(met, [self.channels, times(self.batch, height), window.size[1]])
            product = node.emit("MatMul", node.transpose(left, [0, 2, 1]), right)
            flat = node.reshape(product, [self.channels, window.size[1] * width])
            parts.append(node.emit("MatMul", flat, self._diagonals))
        return parts[0] if len(parts) == 1 else node.emit("Concat", *parts, axis=1)

    @property
    def _diagonals(self) -> npt.NDArray[Any]:
        """1 where a column of x and one of dy meet in a tap: [columns of x * columns of dy, taps of a row]."""
        window = self.window
        columns, taps = np.indices((window.output[1], window.kernel[1]))
        met = columns + taps * window.dilations[1] - window.before[1]
        diagonals: npt.NDArray[Any] = np.equal(np.arange(window.size[1])[:, None, None], met)
        return diagonals.reshape(-1, window.kernel[1]).astype(self.node.dtype)
