"""Depthwise convolutions of small images as one matrix product for each channel.

A convolution is linear: with the positions of an image in a row, a channel's filter is a matrix [inputs, outputs] with
the filter's weights where a tap leads from the one position to the other, and zeros elsewhere. Most products are with
zeros then, but matrix products are so much faster than onnxruntime's Conv with a group for each channel that this pays
up to some thousand elements. Forward and the gradient of the input use the same matrix, padding costs nothing, and the
gradient of the filter sums the gradient of the matrix over each tap.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Sizes, Window
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["DepthwiseProducts"]

SMALLEST_MATRIX = 17
"""Below that many elements, a product for each channel takes longer than passes over all of them."""
LARGEST_MATRIX = 1300
"""Up to that many elements (9x9 positions to 4x4) the matrices of all channels stay in the processor's cache."""
INPUTS_FOR_A_TAP = 9
"""Where a tap stands among more positions than these, too much of the matrix is zero."""
LARGEST_DENSE_MATRIX = 4096
"""Up to that many elements (8x8 positions to 8x8) it pays to make and read the matrices where they are dense."""
INPUTS_FOR_A_TAP_OF_DENSE_MATRIX = 3
"""Dense is where a tap stands among at most these many positions."""


@dataclass(frozen=True, slots=True)
class DepthwiseProducts:
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
    def suits(self) -> bool:
        """Whether this form is the fastest one."""
        elements, inputs, taps = self._elements, prod(self.window.size), len(self.window.taps)
        if elements <= LARGEST_MATRIX:
            return elements >= SMALLEST_MATRIX and inputs <= INPUTS_FOR_A_TAP * taps
        return elements <= LARGEST_DENSE_MATRIX and inputs <= INPUTS_FOR_A_TAP_OF_DENSE_MATRIX * taps

    def forward(self, x: ir.Value, w: ir.Value) -> ir.Value:
        """The convolution: [batch, channels, *output]."""
        product = self.node.emit("MatMul", self._channels_outside(x, self.window.size), self._matrices(w))
        return self._batch_outside(product, self.window.output)

    def input_gradient(self, w: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of x."""
        node = self.node
        across = node.transpose(self._matrices(w), [0, 2, 1])
        product = node.emit("MatMul", self._channels_outside(dy, self.window.output), across)
        return self._batch_outside(product, self.window.size)

    def filter_gradient(self, x: ir.Value, dy: ir.Value) -> ir.Value:
        """The gradient of w, [channels, taps]."""
        node = self.node
        across = node.transpose(self._channels_outside(x, self.window.size), [0, 2, 1])
        of_matrices = node.emit("MatMul", across, self._channels_outside(dy, self.window.output))
        rows = node.reshape(of_matrices, [self.channels, self._elements])
        return node.emit("MatMul", rows, self._places.transpose(1, 0))

    # -- the matrices

    @property
    def _elements(self) -> int:
        return prod(self.window.size) * self.window.positions

    @property
    def _places(self) -> npt.NDArray[Any]:
        """For each tap, 1 where it leads from an input position to an output position: [taps, inputs * outputs]."""
        window = self.window
        places = np.zeros((*window.kernel, *window.size, *window.output), self.node.dtype)
        for met in itertools.product(*(self._met_along(axis) for axis in range(len(window.size)))):
            places[tuple(itertools.chain(*zip(*met, strict=True)))] = 1
        return places.reshape(len(window.taps), self._elements)

    def _met_along(self, axis: int) -> list[Sizes]:
        """On one axis: taps, with the input and the output position that each leads between."""
        window = self.window
        step, dilation, before = window.strides[axis], window.dilations[axis], window.before[axis]
        pairs = itertools.product(range(window.kernel[axis]), range(window.output[axis]))
        triples = ((tap, output * step + tap * dilation - before, output) for tap, output in pairs)
        return [triple for triple in triples if 0 <= triple[1] < window.size[axis]]

    def _matrices(self, w: ir.Value) -> ir.Value:
        """[channels, inputs, outputs]."""
        node, window = self.node, self.window
        rows = node.reshape(w, [self.channels, len(window.taps)])
        elements = node.emit("MatMul", rows, self._places)
        return node.reshape(elements, [self.channels, prod(window.size), window.positions])

    # -- the order of axes

    def _channels_outside(self, x: ir.Value, size: Sizes) -> ir.Value:
        rows = self.node.reshape(x, [self.batch, self.channels, prod(size)])
        return self.node.transpose(rows, [1, 0, 2])

    def _batch_outside(self, rows: ir.Value, size: Sizes) -> ir.Value:
        return self.node.reshape(self.node.transpose(rows, [1, 0, 2]), [self.batch, self.channels, *size])
