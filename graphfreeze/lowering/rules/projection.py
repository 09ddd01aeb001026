"""Images seen through a projective transformation: rotated, moved, zoomed, sheared, in perspective."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import KNOWN, PLAIN, CannotLower, Node, rule
from graphfreeze.lowering.rules.comparison import emit_where

_FLOAT = np.dtype(np.float32)  # TensorFlow computes positions in float32, whatever the images are


@rule("ImageProjectiveTransformV2", "ImageProjectiveTransformV3", inputs=(PLAIN, PLAIN, KNOWN, PLAIN))
def transform(
    node: Node, images: ir.Value, transforms: ir.Value, size: npt.NDArray[Any], fill: ir.Value | None = None
) -> ir.Value:
    """For each pixel what is where the transformation takes it: the nearest pixel, or a mean of the four around."""
    return _Projection(node, images, transforms, size.tolist(), fill).lower()


class _Projection:
    """One transformation of a batch of images.

    Positions are of shape [batch, height, width], images of shape [batch, pixels, channels].
    """

    def __init__(
        self, node: Node, images: ir.Value, transforms: ir.Value, size: list[int], fill: ir.Value | None
    ) -> None:
        self.node = node
        self.dtype = node.dtype
        dims = node.inputs[0].dims
        for dim in dims[1:]:
            if len(set(dim)) > 1:
                followed = node.lowering.sizes.origin(dim)
                raise CannotLower(f"images whose size follows {followed}; images of one size are covered")
        self.batch, self.channels = dims[0], dims[3][0]
        self.height, self.width = dims[1][0], dims[2][0]
        self.size = size
        self.pixels = node.reshape(images, [self.batch, self.height * self.width, self.channels])
        number = fill if fill is not None else np.zeros((), _FLOAT)
        self.fill = node.cast(node.emit("Reshape", number, node.int64([1, 1, 1])), self.dtype)
        self.numbers = node.emit_many("Split", transforms, outputs=8, axis=1, num_outputs=8)

    def lower(self) -> ir.Value:
        """The transformed images."""
        emit = self.node.emit
        one = self._number(1)
        divisor = emit("Add", emit("Add", self._times(6, "x"), self._times(7, "y")), one)
        x, y = (emit("Div", self._line(first), divisor) for first in (0, 3))
        x, y = self._inside(x, self.width), self._inside(y, self.height)
        if self.node.attribute("interpolation") == "NEAREST":
            found = self._read(self._rounded(y), self._rounded(x))
        else:
            found = self._interpolate(y, x)
        nowhere = emit("Equal", divisor, self._number(0))
        chosen = emit_where(self.node, self._column(nowhere), self.fill, found)
        return self.node.reshape(chosen, [self.batch, *self.size, self.channels])

    # -- where pixels come from

    def _number(self, number: float) -> npt.NDArray[Any]:
        return np.full((1, 1, 1), number, _FLOAT)

    def _coefficient(self, index: int) -> ir.Value:
        return self.node.emit("Unsqueeze", self.numbers[index], self.node.int64([2]))

    def _times(self, index: int, axis: str) -> ir.Value:
        shape = (1, 1, -1) if axis == "x" else (1, -1, 1)
        positions = np.arange(self.size[1 if axis == "x" else 0], dtype=_FLOAT).reshape(shape)
        return self.node.emit("Mul", self._coefficient(index), positions)

    def _line(self, first: int) -> ir.Value:
        emit = self.node.emit
        return emit(
            "Add", emit("Add", self._times(first, "x"), self._times(first + 1, "y")), self._coefficient(first + 2)
        )

    def _inside(self, at: ir.Value, length: int) -> ir.Value:
        """What stands for a position outside of an axis."""
        emit, number = self.node.emit, self._number
        zero, last = number(0), number(length - 1)
        match self.node.attribute("fill_mode", "CONSTANT"):
            case "CONSTANT":
                return at
            case "NEAREST":
                found = at
            case "WRAP":
                found = at if length == 1 else self._wrapped(at, length)
            case "REFLECT":
                found = at if length == 1 else self._reflected(at, length)
            case other:
                raise CannotLower(f"the fill mode {other}; CONSTANT, NEAREST, WRAP and REFLECT are covered")
        return emit("Min", emit("Max", found, zero), last)

    def _wrapped(self, at: ir.Value, length: int) -> ir.Value:
        """The image again and again."""
        emit, number = self.node.emit, self._number
        size, period = number(length), number(length - 1)
        turns = self._truncated(emit("Div", emit("Neg", at), period))
        before = emit("Add", at, emit("Mul", size, emit("Add", turns, number(1))))
        after = emit("Sub", at, emit("Mul", size, self._truncated(emit("Div", at, period))))
        return self._by_side(at, length, before, after)

    def _reflected(self, at: ir.Value, length: int) -> ir.Value:
        """The image and its mirror image in turn."""
        emit, number = self.node.emit, self._number
        size, one = number(2 * length), number(1)
        turns = self._truncated(emit("Div", emit("Neg", at), size))
        near = emit("Add", emit("Mul", size, turns), at)
        mirrored = emit("Sub", emit("Neg", near), one)
        before = emit("Where", emit("Less", near, number(-length)), emit("Add", near, size), mirrored)
        near = emit("Sub", at, emit("Mul", size, self._truncated(emit("Div", at, size))))
        mirrored = emit("Sub", emit("Sub", size, near), one)
        after = emit("Where", emit("GreaterOrEqual", near, number(length)), mirrored, near)
        return self._by_side(at, length, before, after)

    def _by_side(self, at: ir.Value, length: int, before: ir.Value, after: ir.Value) -> ir.Value:
        emit, number = self.node.emit, self._number
        inside = emit("Where", emit("Greater", at, number(length - 1)), after, at)
        return emit("Where", emit("Less", at, number(0)), before, inside)

    def _truncated(self, value: ir.Value) -> ir.Value:
        """Rounded towards zero; what is divided here is never negative where it is used."""
        return self.node.emit("Floor", value)

    def _rounded(self, value: ir.Value) -> ir.Value:
        """The nearest whole number, halves away from zero."""
        emit = self.node.emit
        size = emit("Floor", emit("Add", emit("Abs", value), self._number(0.5)))
        return emit("Mul", emit("Sign", value), size)

    # -- what is there

    def _column(self, value: ir.Value) -> ir.Value:
        """Something for each position, for each pixel of a batch of images."""
        return self.node.emit("Reshape", value, self.node.int64([-1, self.size[0] * self.size[1], 1]))

    def _read(self, y: ir.Value, x: ir.Value) -> ir.Value:
        """The pixels at whole positions."""
        emit, number = self.node.emit, self._number
        inside, bounded = [], []
        for at, length in ((y, self.height), (x, self.width)):
            last = number(length - 1)
            inside += [emit("GreaterOrEqual", at, number(0)), emit("LessOrEqual", at, last)]
            bounded.append(self.node.cast(emit("Min", emit("Max", at, number(0)), last), np.int64))
        index = emit("Add", emit("Mul", bounded[0], np.full((1, 1, 1), self.width, np.int64)), bounded[1])
        every = emit("And", emit("And", *inside[:2]), emit("And", *inside[2:]))
        count = self.size[0] * self.size[1]
        column = self._column(index)
        if self.node.inputs[1].dim(0) != self.batch:
            column = emit("Expand", column, self.node.vector([self.batch, count, 1]))
        return emit_where(
            self.node, self._column(every), emit("GatherND", self.pixels, column, batch_dims=1), self.fill
        )

    def _interpolate(self, y: ir.Value, x: ir.Value) -> ir.Value:
        emit, one = self.node.emit, self._number(1)
        top, left = emit("Floor", y), emit("Floor", x)
        bottom, right = emit("Add", top, one), emit("Add", left, one)
        nearness = [self._column(emit("Sub", *pair)) for pair in ((right, x), (x, left), (bottom, y), (y, top))]
        rows = []
        for row in (top, bottom):
            pixels = [self.node.cast(self._read(row, column), _FLOAT) for column in (left, right)]
            rows.append(emit("Add", *(emit("Mul", *pair) for pair in zip(nearness[:2], pixels, strict=True))))
        mixed = emit("Add", *(emit("Mul", *pair) for pair in zip(nearness[2:], rows, strict=True)))
        return self.node.cast(mixed, self.dtype)
