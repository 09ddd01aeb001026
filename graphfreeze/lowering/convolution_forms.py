"""The forms in which convolutions and their gradients are written in ONNX, for every rank and group count.

onnxruntime's Conv and ConvTranspose are not the fastest form everywhere, and have no float64 kernels on CPUs: few
positions and float64 take matrix products over the taps instead, and 1x1 filters products with that one matrix.
ConvTranspose gets symmetric padding only, as its CUDA kernel demands; what is too much is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Window, crop, place_taps, slice_taps, times
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.splits import emit_split
from graphfreeze.lowering.tensor import Dim

__all__ = ["Convolution"]

FEW_POSITIONS = 16
"""Up to here one matrix product over all taps beats Conv and ConvTranspose."""
BATCHED_POSITIONS = 100
"""From here on a matrix product per tap and image beats one over all images for the filter's gradient."""
FEW_CHANNELS = 3
"""Up to so many inputs one matrix product for all taps of an image beats one per tap, whose matrices are too narrow."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """The convolution of x [batch, inputs, *size] with w [outputs, inputs/groups, *kernel]: [batch, outputs, *output].

    Attributes:
        node: The operation that is lowered.
        window: How the filter slides.
        batch: The batch dimension.
        inputs: The channels of x.
        outputs: The channels of the result.
        groups: Into how many independent convolutions the channels are split.
    """

    node: Node
    window: Window
    batch: Dim
    inputs: int
    outputs: int
    groups: int = 1

    # -- the three directions

    def forward(self, x: ir.Value, w: ir.Value) -> ir.Value:
        """The convolution."""
        if self._wants_rows:
            (tap,) = slice_taps(self.node, x, self.window)
            product = self.node.emit("Gemm", self._rows(tap, self.inputs), self._matrix(w), transB=1)
            return self._images(product, self.outputs)
        if self._wants_products(self.window.positions):
            return self._product_of_columns(x, w)
        return self._conv(x, w)

    def input_gradient(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        """The transposed convolution of dy [batch, outputs, *output]: [batch, inputs, *size]."""
        if self._wants_rows:
            met = self._images(self.node.emit("MatMul", self._rows(dy, self.outputs), self._matrix(w)), self.inputs)
            return place_taps(self.node, [met], self.window, self.batch, self.inputs)
        if self.window.is_pointwise and self.groups == 1:
            images = self.node.reshape(dy, [self.batch, self.outputs, self.window.positions])
            product = self.node.emit("MatMul", self.node.transpose(self._matrix(w), [1, 0]), images)
            return self.node.reshape(product, [self.batch, self.inputs, *self.window.size])
        if self._wants_products(self.window.positions):
            return self._columns_of_product(w, dy)
        return self._conv_transpose(w, dy)

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of the filter: [outputs, inputs/groups, *kernel]."""
        taps = slice_taps(self.node, x, self.window)
        if self._wants_rows:
            product = self.node.emit("Gemm", self._rows(dy, self.outputs), self._rows(taps[0], self.inputs), transA=1)
        elif self.groups == 1 and self.window.positions < BATCHED_POSITIONS:
            columns = self._columns(taps)
            rows = self._channels_by_positions(dy, self.outputs)
            product = self.node.emit("Gemm", rows, columns, transB=1)
        elif self.groups == 1 and self.inputs <= FEW_CHANNELS:
            product = self._product_per_image(taps, dy)
        else:
            product = self._product_per_tap(taps, dy)
        return self.node.reshape(product, [self.outputs, self.inputs // self.groups, *self.window.kernel])

    def _wants_products(self, positions: int) -> bool:
        return self.node.dtype == np.float64 or (self.groups == 1 and positions <= FEW_POSITIONS)

    @property
    def _wants_rows(self) -> bool:
        """Whether the filter is one matrix, which the few positions are multiplied with as rows of channels."""
        return self.groups == len(self.window.taps) == 1 and self.window.positions <= FEW_POSITIONS

    # -- Conv and ConvTranspose

    def _conv(self, x: ir.Value, w: ir.Value) -> ir.Value:
        window = self.window
        pads = [*window.before, *(max(after, 0) for after in window.after)]
        return self.node.emit("Conv", x, w, pads=pads, **self._attributes)

    def _conv_transpose(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        window = self.window
        skipped, pads, beyond, reached = [], [], [], []
        for size, before, after in zip(window.size, window.before, window.after, strict=True):
            pad = min(before, max(after, 0))
            skipped.append(before - pad)
            pads.append(pad)
            beyond.append(max(-after, 0))
            reached.append(size + before - pad + max(after - pad, 0))
        x = self.node.emit("ConvTranspose", dy, w, pads=pads * 2, output_padding=beyond, **self._attributes)
        return crop(self.node, x, reached, skipped, window.size)

    @property
    def _attributes(self) -> dict[str, Any]:
        window = self.window
        sizes = {"kernel_shape": window.kernel, "strides": window.strides, "dilations": window.dilations}
        return {name: list(size) for name, size in sizes.items()} | {"group": self.groups}

    # -- matrix products over the taps

    def _product_of_columns(self, x: ir.Value, w: ir.Value) -> ir.Value:
        columns = self._columns(slice_taps(self.node, x, self.window))
        rows = self.node.reshape(w, self._grouped(self.outputs, self._depth))
        product = self.node.emit("MatMul", rows, columns)
        apart = self.node.reshape(product, [self.outputs, self.batch, *self.window.output])
        return self._swap_channels_and_batch(apart)

    def _columns_of_product(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        node, window = self.node, self.window
        rows = node.reshape(w, self._grouped(self.outputs, self._depth))
        by_positions = self._channels_by_positions(dy, self.outputs)
        if self.groups == 1:
            columns = node.emit("Gemm", rows, by_positions, transA=1)
        else:
            columns = node.emit("MatMul", node.transpose(rows, [0, 2, 1]), by_positions)
        count = len(window.taps)
        apart = node.reshape(columns, [self.inputs, count, self.batch, window.positions])
        first = node.transpose(apart, [1, 2, 0, 3])
        # The columns are large, and groups would copy them once more: those of 3 x 3 stay in one node.
        parts = emit_split(node, first, [1] * count, 0, most=9)
        values = [node.reshape(part, [self.batch, self.inputs, *window.output]) for part in parts]
        return place_taps(node, values, window, self.batch, self.inputs)

    def _product_per_image(self, taps: Sequence[ir.Value], dy: ir.Value) -> ir.Value:
        """One product per image, added up over the images: [outputs, inputs * taps]."""
        node, positions = self.node, self.window.positions
        parts = [node.reshape(tap, [self.batch, self.inputs, 1, positions]) for tap in taps]
        stacked = parts[0] if len(parts) == 1 else node.emit("Concat", *parts, axis=2)
        columns = node.reshape(stacked, [self.batch, self.inputs * len(taps), positions])
        left = node.reshape(dy, [self.batch, self.outputs, positions])
        product = node.emit("MatMul", left, node.transpose(columns, [0, 2, 1]))
        return node.emit("ReduceSum", product, node.int64([0]), keepdims=0)

    def _product_per_tap(self, taps: Sequence[ir.Value], dy: ir.Value) -> ir.Value:
        """One product per tap and image, added up over the images: [outputs, inputs/groups, taps]."""
        node = self.node
        left = node.reshape(dy, [self.batch, *self._grouped(self.outputs, self.window.positions)])
        rank = 3 if self.groups == 1 else 4
        parts: list[ir.Value] = []
        for tap in taps:
            right = node.reshape(tap, [self.batch, *self._grouped(self.inputs, self.window.positions)])
            product = node.emit("MatMul", left, node.transpose(right, [*range(rank - 2), rank - 1, rank - 2]))
            total = node.emit("ReduceSum", product, node.int64([0]), keepdims=0)
            parts.append(node.reshape(total, [self.outputs, self.inputs // self.groups, 1]))
        return parts[0] if len(parts) == 1 else node.emit("Concat", *parts, axis=2)

    # -- products of rows of channels with the one matrix of a 1x1 filter

    def _matrix(self, w: ir.Value) -> ir.Value:
        return self.node.reshape(w, [self.outputs, self.inputs])

    def _rows(self, value: ir.Value, channels: int) -> ir.Value:
        """[batch * positions, channels]."""
        positions = self.window.positions
        columns = self.node.reshape(value, [self.batch, channels, positions])
        return self.node.reshape(self.node.transpose(columns, [0, 2, 1]), [times(self.batch, positions), channels])

    def _images(self, rows: ir.Value, channels: int) -> ir.Value:
        """[batch, channels, *output]."""
        apart = self.node.reshape(rows, [self.batch, self.window.positions, channels])
        return self.node.reshape(self.node.transpose(apart, [0, 2, 1]), [self.batch, channels, *self.window.output])

    # -- shapes of matrices

    @property
    def _depth(self) -> int:
        return self.inputs // self.groups * len(self.window.taps)

    def _grouped(self, rows: int, columns: int | Dim) -> list[int | Dim]:
        """The shape of a matrix, or of one for each group."""
        return [rows, columns] if self.groups == 1 else [self.groups, rows // self.groups, columns]

    def _columns(self, taps: Sequence[ir.Value]) -> ir.Value:
        """[inputs * taps, batch * positions], for each group."""
        node, positions = self.node, self.window.positions
        parts = [node.reshape(tap, [self.batch, self.inputs, 1, positions]) for tap in taps]
        stacked = parts[0] if len(parts) == 1 else node.emit("Concat", *parts, axis=2)
        ordered = node.transpose(stacked, [1, 2, 0, 3])
        return node.reshape(ordered, self._grouped(self.inputs * len(taps), times(self.batch, positions)))

    def _channels_by_positions(self, dy: ir.Value, channels: int) -> ir.Value:
        """[channels, batch * positions], for each group."""
        shape = self._grouped(channels, times(self.batch, self.window.positions))
        return self.node.reshape(self._swap_channels_and_batch(dy), shape)

    def _swap_channels_and_batch(self, value: ir.Value) -> ir.Value:
        return self.node.transpose(value, [1, 0, *range(2, 2 + len(self.window.size))])
