"""How a window slides over the spatial axes: the arithmetic that convolutions and pooling of every rank share.

All values here have their channels first: [batch, channels, *spatial]. A *tap* is one position inside the window; taps
are listed in row-major order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Dim, Layout, Tensor

__all__ = [
    *("Sizes", "Slide", "Window", "batch_and_channels", "crop", "image_dims", "interleave", "operation_slide"),
    *("operation_window", "place_taps", "slice_taps", "spatial_axes", "surround", "times"),
]

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slide:
    """How a window of any size slides over spatial axes: all of a `Window` but the window.

    Attributes:
        size: The input's spatial sizes.
        output: The number of window positions on each axis.
        strides: Input positions between two window positions.
        dilations: Input positions between two taps.
    """

    size: Sizes
    output: Sizes
    strides: Sizes
    dilations: Sizes


@dataclass(frozen=True, slots=True)
class Window:
    """A window over spatial axes: output position `o` and tap `t` meet at input `o * stride + t * dilation - before`.

    Attributes:
        size: The input's spatial sizes.
        output: The number of window positions on each axis.
        kernel: The window's taps on each axis.
        strides: Input positions between two window positions.
        dilations: Input positions between two taps.
        before: Padding before each axis; negative where the first elements are never met.
    """

    size: Sizes
    output: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    before: Sizes

    @property
    def extent(self) -> Sizes:
        """The input positions from the first tap to the last."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def after(self) -> Sizes:
        """Padding after each axis; negative where the last elements are never met."""
        axes = zip(self.size, self.output, self.strides, self.extent, self.before, strict=True)
        return tuple((output - 1) * stride + extent - before - size for size, output, stride, extent, before in axes)

    @property
    def positions(self) -> int:
        """The number of window positions."""
        return prod(self.output)

    @property
    def taps(self) -> list[Sizes]:
        """The taps in row-major order."""
        return list(itertools.product(*map(range, self.kernel)))

    @property
    def is_pointwise(self) -> bool:
        """Whether output and input positions are the same."""
        return set(self.kernel) == set(self.strides) == {1} and self.size == self.output and not any(self.before)

    def along(self, axis: int) -> Window:
        """The same window on one axis, where the axes before it are done already and those after it are not."""

        def only(sizes: Sizes) -> Sizes:
            return tuple(size if index == axis else 1 for index, size in enumerate(sizes))

        return replace(
            self,
            size=self.size[: axis + 1] + self.output[axis + 1 :],
            output=self.size[:axis] + self.output[axis:],
            kernel=only(self.kernel),
            strides=only(self.strides),
            dilations=only(self.dilations),
            before=tuple(before if index == axis else 0 for index, before in enumerate(self.before)),
        )


def operation_window(node: Node, image: Tensor, output: Tensor, kernel: Sequence[int]) -> Window:
    """The window of a TensorFlow convolution or pooling from its attributes and the shapes of input and output.

    Raises:
        CannotLower: Only run time knows a spatial size.
    """
    slide = operation_slide(node, image, output)
    spatial = spatial_axes(node, image.rank)
    window = Window(slide.size, slide.output, tuple(kernel), slide.strides, slide.dilations, (0,) * len(spatial))
    match node.attribute("padding"):
        case "SAME":
            return replace(window, before=tuple(max(total, 0) // 2 for total in window.after))
        case "EXPLICIT":
            paddings = node.attribute("explicit_paddings")
            return replace(window, before=tuple(paddings[2 * axis] for axis in spatial))
        case _:
            return window


def operation_slide(node: Node, image: Tensor, output: Tensor) -> Slide:
    """How a window of any size slides, from the operation's attributes and the shapes of input and output.

    Raises:
        CannotLower: Only run time knows a spatial size.
    """
    spatial = spatial_axes(node, image.rank)
    strides, given = node.attribute("strides"), node.attribute("dilations") or [1] * image.rank
    return Slide(
        _static(node, image, spatial),
        _static(node, output, spatial),
        tuple(strides[axis] for axis in spatial),
        tuple(given[axis] for axis in spatial),
    )


def image_dims(node: Node, tensor: Tensor) -> tuple[Dim, int, Sizes]:
    """Batch, channels and spatial sizes of a tensor in the operation's `data_format`.

    Raises:
        CannotLower: Only run time knows a spatial size or the number of channels.
    """
    return *batch_and_channels(node, tensor), _static(node, tensor, spatial_axes(node, tensor.rank))


def batch_and_channels(node: Node, tensor: Tensor) -> tuple[Dim, int]:
    """The first two of these, where the spatial sizes may be open.

    Raises:
        CannotLower: Only run time knows the number of channels.
    """
    channels = tensor.rank - 1 if spatial_axes(node, tensor.rank)[0] == 1 else 1
    return tensor.dim(0), _static(node, tensor, [channels])[0]


def spatial_axes(node: Node, rank: int) -> range:
    """The axes that are neither the batch nor the channels, in the operation's `data_format`."""
    return range(2, rank) if node.image_layout is Layout.PLAIN else range(1, rank - 1)


def _static(node: Node, tensor: Tensor, axes: Sequence[int]) -> Sizes:
    sizes = []
    for axis in axes:
        size = tensor.shape[axis]
        if size is None:
            followed = node.lowering.sizes.origin(tensor.dim(axis))
            raise CannotLower(f"an axis other than the first follows {followed}; export the model with its size fixed")
        sizes.append(size)
    return tuple(sizes)


def times(dim: Dim, factor: Dim | int) -> Dim:
    """A dimension multiplied at each sample batch size."""
    if isinstance(factor, int):
        return tuple(size * factor for size in dim)
    return tuple(size * other for size, other in zip(dim, factor, strict=True))


def slice_taps(node: Node, x: ir.Value, window: Window, *, fill: float = 0.0) -> list[ir.Value]:
    """What each tap meets: one value [batch, channels, *output] per tap; `fill` is what the padding holds."""
    if window.is_pointwise:
        return [x]
    low = [max(before, 0) for before in window.before]
    high = [max(after, 0) for after in window.after]
    if any(low + high):
        pads = node.int64([0, 0, *low, 0, 0, *high])
        x = node.emit("Pad", x, pads) if fill == 0 else node.emit("Pad", x, pads, node.scalar(fill, 0))
    axes = node.int64(range(2, 2 + len(window.size)))
    values = []
    for tap in window.taps:
        starts = [t * d - b + p for t, d, b, p in zip(tap, window.dilations, window.before, low, strict=True)]
        ends = [s + (o - 1) * step + 1 for s, o, step in zip(starts, window.output, window.strides, strict=True)]
        values.append(node.emit("Slice", x, node.int64(starts), node.int64(ends), axes, node.int64(window.strides)))
    return values


def place_taps(node: Node, values: Sequence[ir.Value], window: Window, batch: Dim, channels: int) -> ir.Value:
    """The transpose of `slice_taps`: adds each tap's value where the tap met it; [batch, channels, *size].

    Taps that meet the same positions modulo the stride are added at the output's resolution; the sums, one for each
    residue, are then interleaved.
    """
    steps = list(zip(window.dilations, window.strides, strict=True))
    ends = [before + size for before, size in zip(window.before, window.size, strict=True)]
    # Up to the last tap of the last window: what no window meets is padded once, at the end.
    axes = zip(ends, window.strides, window.extent, window.output, strict=True)
    length = [min(-(-end // stride), (extent - 1) // stride + n) for end, stride, extent, n in axes]
    planes: dict[Sizes, ir.Value] = {}
    for tap, value in zip(window.taps, values, strict=True):
        residue = tuple(t * d % s for t, (d, s) in zip(tap, steps, strict=True))
        shift = [t * d // s for t, (d, s) in zip(tap, steps, strict=True)]
        if any(q >= n for q, n in zip(shift, length, strict=True)):
            continue  # it only ever meets padding
        value = crop(node, value, window.output, [-q for q in shift], length)
        planes[residue] = node.emit("Add", planes[residue], value) if residue in planes else value
    everywhere = interleave(node, planes, window.strides, [batch, channels, *length])
    covered = [n * s for n, s in zip(length, window.strides, strict=True)]
    return crop(node, everywhere, covered, window.before, window.size)


def interleave(node: Node, planes: dict[Sizes, ir.Value], strides: Sizes, dims: Sequence[Dim | int]) -> ir.Value:
    """One value from those of each residue modulo the strides; an absent residue is zero. `dims` are a plane's."""
    dims = list(dims)
    zero: ir.Value | None = None
    for axis in reversed(range(len(strides))):
        stride, position = strides[axis], axis + 2
        if stride == 1:
            planes = {residue[:axis]: value for residue, value in planes.items()}
            continue
        merged: dict[Sizes, ir.Value] = {}
        for leading in sorted({residue[:axis] for residue in planes}):
            members = []
            for residue in range(stride):
                member = planes.get((*leading, residue))
                if member is None:
                    zero = zero or node.emit("Expand", node.scalar(0), node.vector(dims))
                    member = zero
                members.append(node.emit("Unsqueeze", member, node.int64([position + 1])))
            stacked = node.emit("Concat", *members, axis=position + 1)
            grown = [*dims[:position], _grow(dims[position], stride), *dims[position + 1 :]]
            merged[leading] = node.reshape(stacked, grown)
        planes, zero = merged, None
        dims[position] = _grow(dims[position], stride)
    return planes[()]


def _grow(dim: Dim | int, factor: int) -> Dim | int:
    return dim * factor if isinstance(dim, int) else times(dim, factor)


def crop(node: Node, x: ir.Value, size: Sequence[int], start: Sequence[int], length: Sequence[int]) -> ir.Value:
    """The spatial positions from `start` on, `length` of them; zero where they lie outside."""
    ends = [s + n for s, n in zip(start, length, strict=True)]
    pads = [max(-s, 0) for s in start], [max(end - n, 0) for end, n in zip(ends, size, strict=True)]
    cut = [axis for axis, (s, end, n) in enumerate(zip(start, ends, size, strict=True)) if s > 0 or end < n]
    if cut:
        starts, stops = [max(start[axis], 0) for axis in cut], [min(ends[axis], size[axis]) for axis in cut]
        x = node.emit("Slice", x, node.int64(starts), node.int64(stops), node.int64([axis + 2 for axis in cut]))
    if any(pads[0] + pads[1]):
        x = node.emit("Pad", x, node.int64([0, 0, *pads[0], 0, 0, *pads[1]]))
    return x


def surround(
    node: Node, x: ir.Value, batch: Dim, channels: int, size: Sequence[int], low: Sequence[int], high: Sequence[int]
) -> ir.Value:
    """Zeros before and after the spatial positions of x [batch, channels, *size].

    Along the last axis they are columns put beside x: onnxruntime's Pad takes two to three times as long for that.
    """
    pads = [0, 0, *low[:-1], 0, 0, 0, *high[:-1], 0]
    if any(pads):
        x = node.emit("Pad", x, node.int64(pads))
    grown = [n + before + after for n, before, after in zip(size, low, high, strict=True)]

    def columns(count: int) -> list[ir.Value]:
        dims: list[Dim | int] = [batch, channels, *grown[:-1], count]
        return [node.emit("Expand", node.scalar(0, len(dims)), node.vector(dims))] if count else []

    parts = [*columns(low[-1]), x, *columns(high[-1])]
    return x if len(parts) == 1 else node.emit("Concat", *parts, axis=1 + len(size))
