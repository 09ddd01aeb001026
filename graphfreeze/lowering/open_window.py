"""Windows that slide over axes of which one is only as long as run time says: the sequences of any length.

How far apart its positions are is known, and so is where a tap stands in its window. What follows the length is where
the last window ends, and with strides how much the padding SAME puts around. All values have their channels first.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import Sizes, interleave, spatial_axes, times
from graphfreeze.lowering.numbers import plus, static
from graphfreeze.lowering.rule import Node
from graphfreeze.lowering.tensor import Dim, Tensor

__all__ = ["OpenWindow", "is_open", "open_window", "shared_padding"]


def is_open(node: Node, image: Tensor) -> bool:
    """Whether only run time knows a spatial size of the image."""
    return any(image.shape[axis] is None for axis in spatial_axes(node, image.rank))


def shared_padding(node: Node, reached: ir.Value) -> tuple[ir.Value, ir.Value]:
    """What SAME puts before and after each axis, of which the windows reach so much beyond: the odd one is behind."""
    padding = node.emit("Max", reached, node.int64([0]))
    before = node.emit("Div", padding, node.int64([2]))
    return before, node.emit("Sub", padding, before)


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A window over spatial axes: output position `o` and tap `t` meet at input `o * stride + t * dilation - before`.

    Attributes:
        node: The operation that is lowered.
        size: The input's spatial sizes.
        output: The number of window positions on each axis.
        kernel: The window's taps on each axis.
        strides: Input positions between two window positions.
        dilations: Input positions between two taps.
        padding: Before and after each axis, or None where it follows the length: that of SAME with strides.
    """

    node: Node
    size: Sequence[Dim]
    output: Sequence[Dim]
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    padding: tuple[Sizes, Sizes] | None

    @property
    def extent(self) -> Sizes:
        """The input positions from the first tap to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def taps(self) -> list[Sizes]:
        """The taps in row-major order."""
        return list(itertools.product(*map(range, self.kernel)))

    @property
    def is_pointwise(self) -> bool:
        """Whether output and input positions are the same."""
        is_padded = self.padding is None or any(map(any, self.padding))
        return set(self.kernel) == set(self.strides) == {1} and not is_padded

    def pad(self, x: ir.Value, fill: float = 0.0) -> ir.Value:
        """The input with the padding around it."""
        node = self.node
        if self.padding is None:
            before, after = self._computed_padding
            pads = node.emit("Concat", node.int64([0, 0]), before, node.int64([0, 0]), after, axis=0)
        elif any(map(any, self.padding)):
            pads = node.int64([0, 0, *self.padding[0], 0, 0, *self.padding[1]])
        else:
            return x
        return node.emit("Pad", x, pads) if fill == 0 else node.emit("Pad", x, pads, node.scalar(fill, 0))

    def slice_taps(self, x: ir.Value, fill: float = 0.0) -> list[ir.Value]:
        """What each tap meets: one value [batch, channels, *output] per tap; `fill` is what the padding holds."""
        if self.is_pointwise:
            return [x]
        node, x, values = self.node, self.pad(x, fill), []
        axes, steps = node.int64(range(2, 2 + len(self.size))), node.int64(self.strides)
        for tap in self.taps:
            starts = [t * dilation for t, dilation in zip(tap, self.dilations, strict=True)]
            ends = [
                plus(times(n, step), start - step + 1)
                for n, step, start in zip(self.output, self.strides, starts, strict=True)
            ]
            values.append(node.emit("Slice", x, node.int64(starts), node.vector(ends), axes, steps))
        return values

    def place_taps(self, values: Sequence[ir.Value], batch: Dim, channels: int) -> ir.Value:
        """The transpose of `slice_taps`: adds each tap's value where the tap met it; [batch, channels, *size].

        Taps that meet the same positions modulo the stride are added first; the sums, one for each residue, are then
        interleaved.
        """
        if self.is_pointwise:
            return values[0]
        node, steps = self.node, list(zip(self.dilations, self.strides, strict=True))
        most = [(extent - 1) // stride for extent, stride in zip(self.extent, self.strides, strict=True)]
        planes: dict[Sizes, ir.Value] = {}
        for tap, value in zip(self.taps, values, strict=True):
            residue = tuple(t * d % s for t, (d, s) in zip(tap, steps, strict=True))
            low = [t * d // s for t, (d, s) in zip(tap, steps, strict=True)]
            high = [shift - q for shift, q in zip(most, low, strict=True)]
            if any(low + high):
                value = node.emit("Pad", value, node.int64([0, 0, *low, 0, 0, *high]))
            planes[residue] = node.emit("Add", planes[residue], value) if residue in planes else value
        length = [plus(n, shift) for n, shift in zip(self.output, most, strict=True)]
        everywhere = interleave(node, planes, self.strides, [batch, channels, *length])
        spare = [(m + 1) * s - e for m, s, e in zip(most, self.strides, self.extent, strict=True)]
        return self.crop(everywhere, spare)

    @property
    def never_met(self) -> Sizes:
        """By how many positions the input can end behind the last tap of the last window, at most."""
        if self.padding is None:
            return tuple(max(stride - extent, 0) for stride, extent in zip(self.strides, self.extent, strict=True))
        found = zip(self._missing, self.strides, strict=True)
        return tuple(stride - 1 if missing is None else max(missing, 0) for missing, stride in found)

    @property
    def even_padding(self) -> Sizes:
        """How much of the padding that windows meet there is at either end alike."""
        if self.padding is None:
            return (0,) * len(self.size)
        ends = zip(*self.padding, self._missing, strict=True)
        return tuple(min(low, high if missing is None else max(-missing, 0)) for low, high, missing in ends)

    @property
    def _missing(self) -> list[int | None]:
        """By how many positions the input ends behind the last tap of the last window, where that is fixed."""
        assert self.padding is not None
        ends = zip(self.size, self.padding[0], self._reach, strict=True)
        return [static(plus(plus(size, before), reach, -1)) for size, before, reach in ends]

    def crop(self, x: ir.Value, spare: Sequence[int], cut: Sequence[int] | None = None) -> ir.Value:
        """The positions of the input: zero where no window is.

        Args:
            x: The positions from the first tap of the first window to the last tap of the last one.
            spare: How many positions more there are at the end.
            cut: How many of the padding are cut off at either end already.
        """
        node, rank = self.node, len(self.size)
        cut = cut or (0,) * rank
        lacking = [max(most - more, 0) for most, more in zip(self.never_met, spare, strict=True)]
        if any(lacking):
            x = node.emit("Pad", x, node.int64([0] * (4 + rank) + lacking))
        if self.padding is None:
            before = self._computed_padding[0]
            ends = node.emit("Add", before, node.vector(self.size))
            return node.emit("Slice", x, before, ends, node.int64(range(2, 2 + rank)))
        starts = [before - gone for before, gone in zip(self.padding[0], cut, strict=True)]
        ends_at = [plus(size, start) for size, start in zip(self.size, starts, strict=True)]
        reached = [
            plus(end, more + lack - 2 * gone)
            for end, more, lack, gone in zip(self._reach, spare, lacking, cut, strict=True)
        ]
        axes = [axis for axis in range(rank) if starts[axis] or ends_at[axis] != reached[axis]]
        if not axes:
            return x
        bounds = node.int64([starts[axis] for axis in axes]), node.vector([ends_at[axis] for axis in axes])
        return node.emit("Slice", x, *bounds, node.int64([axis + 2 for axis in axes]))

    @property
    def _reach(self) -> list[Dim]:
        """The input positions from the first tap of the first window to the last tap of the last one."""
        axes = zip(self.output, self.strides, self.extent, strict=True)
        return [plus(times(n, stride), extent - stride) for n, stride, extent in axes]

    @property
    def _computed_padding(self) -> tuple[ir.Value, ir.Value]:
        beyond = [plus(reach, size, -1) for reach, size in zip(self._reach, self.size, strict=True)]
        return shared_padding(self.node, self.node.vector(beyond))


def open_window(node: Node, image: Tensor, output: Tensor, kernel: Sequence[int]) -> OpenWindow:
    """The window of a TensorFlow convolution or pooling from its attributes and the shapes of input and output."""
    spatial = spatial_axes(node, image.rank)
    strides, dilations = node.attribute("strides"), node.attribute("dilations") or [1] * image.rank
    size, positions = ([tensor.dim(axis) for axis in spatial] for tensor in (image, output))
    steps, apart = tuple(strides[axis] for axis in spatial), tuple(dilations[axis] for axis in spatial)
    padding: tuple[Sizes, Sizes] | None = (0,) * len(spatial), (0,) * len(spatial)
    if node.attribute("padding") == "EXPLICIT":
        given = node.attribute("explicit_paddings")
        padding = tuple(given[2 * axis] for axis in spatial), tuple(given[2 * axis + 1] for axis in spatial)
    elif node.attribute("padding") == "SAME":
        padding = _fixed_padding(size, positions, kernel, steps, apart)
    return OpenWindow(node, size, positions, tuple(kernel), steps, apart, padding)


def _fixed_padding(
    size: Sequence[Dim], output: Sequence[Dim], kernel: Sequence[int], strides: Sizes, dilations: Sizes
) -> tuple[Sizes, Sizes] | None:
    """What SAME puts before and after, where it does not follow the length."""
    window_axes = zip(size, output, kernel, strides, dilations, strict=True)
    found = [
        static(plus(plus(times(n, stride), (k - 1) * dilation + 1 - stride), length, -1))
        for length, n, k, stride, dilation in window_axes
    ]
    totals = [max(total, 0) for total in found if total is not None]
    if len(totals) < len(found):
        return None
    return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
