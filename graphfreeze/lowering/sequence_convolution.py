"""Convolutions over sequences of any length, and over images of which only run time knows the height or the width.

How many positions there are decides which form is the fastest, and here that is open: it is Conv and ConvTranspose,
and a matrix product for each tap of the filter's gradient and in float64, for which onnxruntime has neither on CPUs.
ConvTranspose gets symmetric padding only, as its CUDA kernel demands; what is too much is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import times
from graphfreeze.lowering.open_window import OpenWindow
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.splits import emit_split
from graphfreeze.lowering.tensor import Dim

__all__ = ["SequenceConvolution"]


@dataclass(frozen=True, slots=True)
class SequenceConvolution:
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
    window: OpenWindow
    batch: Dim
    inputs: int
    outputs: int
    groups: int = 1

    def forward(self, x: ir.Value, w: ir.Value) -> ir.Value:
        """The convolution."""
        if self.node.dtype == np.float64:
            return self._sum_of_products(x, w)
        if self.window.padding is None:
            return self.node.emit("Conv", self.window.pad(x), w, **self._attributes)
        before, after = self.window.padding
        return self.node.emit("Conv", x, w, pads=[*before, *after], **self._attributes)

    def input_gradient(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        """The transposed convolution of dy [batch, outputs, *output]: [batch, inputs, *size]."""
        if self.node.dtype == np.float64 or (self.window.is_pointwise and self.groups == 1):
            return self._products_of_taps(w, dy)
        spare, cut = self.window.never_met, self.window.even_padding
        sizes = {"pads": [*cut, *cut], "output_padding": list(spare)}
        return self.window.crop(self.node.emit("ConvTranspose", dy, w, **sizes, **self._attributes), spare, cut)

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of the filter, one product per tap and image: [outputs, inputs/groups, *kernel]."""
        node, depth = self.node, self.inputs // self.groups
        left = self._matrices(dy, self.outputs)
        rank = 3 if self.groups == 1 else 4
        parts = []
        for tap in self.window.slice_taps(x):
            right = node.transpose(self._matrices(tap, self.inputs), [*range(rank - 2), rank - 1, rank - 2])
            total = node.emit("ReduceSum", node.emit("MatMul", left, right), node.int64([0]), keepdims=0)
            parts.append(node.reshape(total, [self.outputs, depth, 1]))
        together = parts[0] if len(parts) == 1 else node.emit("Concat", *parts, axis=2)
        return node.reshape(together, [self.outputs, depth, *self.window.kernel])

    @property
    def _attributes(self) -> dict[str, Any]:
        window = self.window
        sizes = {"kernel_shape": window.kernel, "strides": window.strides, "dilations": window.dilations}
        return {name: list(size) for name, size in sizes.items()} | {"group": self.groups}

    # -- matrix products over the taps

    def _sum_of_products(self, x: ir.Value, w: ir.Value) -> ir.Value:
        node = self.node
        taps = [self._matrices(tap, self.inputs) for tap in self.window.slice_taps(x)]
        parts = [node.emit("MatMul", *pair) for pair in zip(self._matrix_of_each_tap(w), taps, strict=True)]
        total = reduce(partial(node.emit, "Add"), parts)
        return node.reshape(total, [self.batch, self.outputs, *self.window.output])

    def _products_of_taps(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        node, rows = self.node, self._matrices(dy, self.outputs)
        order = [1, 0] if self.groups == 1 else [0, 2, 1]
        products = [node.emit("MatMul", node.transpose(part, order), rows) for part in self._matrix_of_each_tap(w)]
        values = [node.reshape(product, [self.batch, self.inputs, *self.window.output]) for product in products]
        return self.window.place_taps(values, self.batch, self.inputs)

    def _matrix_of_each_tap(self, w: ir.Value) -> list[ir.Value]:
        """[outputs, inputs/groups] for each tap, or one for each group."""
        node, depth, count = self.node, self.inputs // self.groups, len(self.window.taps)
        first = node.transpose(node.reshape(w, [self.outputs, depth, count]), [2, 0, 1])
        shape = [self.outputs, depth] if self.groups == 1 else [self.groups, self.outputs // self.groups, depth]
        return [node.reshape(part, shape) for part in emit_split(node, first, [1] * count, 0)]

    def _matrices(self, value: ir.Value, channels: int) -> ir.Value:
        """[batch, channels, positions], for each group."""
        positions = (1,) * len(self.batch)
        for n in self.window.output:
            positions = times(positions, n)
        shape = [channels] if self.groups == 1 else [self.groups, channels // self.groups]
        return self.node.reshape(value, [self.batch, *shape, positions])
