"""Boxes cut out of images and resized, with the gradients of the images and of the boxes.

TensorFlow computes places and crops in float32, whatever the images are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.convolution_geometry import times
from graphfreeze.lowering.rule import PLAIN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.rules.gather import emit_scatter
from graphfreeze.lowering.tensor import Tensor

_FLOAT = np.dtype(np.float32)


@rule("CropAndResize", inputs=(PLAIN, PLAIN, PLAIN, UNUSED))
def crop_and_resize(node: Node, images: ir.Value, boxes: ir.Value, owners: ir.Value) -> ir.Value:
    """For each place of a crop the nearest pixel of its box, or a mean of the four around; a number outside."""
    crops = _Crops(node, node.inputs[0], node.outputs[0], boxes, owners)
    if node.attribute("method", "bilinear") == "nearest":
        found = crops.read(images, crops.nearest)
    else:
        top_left, top_right, bottom_left, bottom_right = (crops.read(images, corner) for corner in crops.corners)
        rows = crops.between(top_left, top_right, crops.x), crops.between(bottom_left, bottom_right, crops.x)
        found = crops.between(*rows, crops.y)
    return node.emit("Where", crops.inside, found, node.scalar(node.attribute("extrapolation_value", 0.0)))


@rule("CropAndResizeGradImage", inputs=(PLAIN, PLAIN, PLAIN, UNUSED))
def crop_and_resize_gradient_of_images(node: Node, dy: ir.Value, boxes: ir.Value, owners: ir.Value) -> ir.Value:
    """Each pixel's gradient is the sum over the places that took from it, times their shares of it."""
    output = node.outputs[0]
    node = Node(node.lowering, node.operation, node.inputs, [Tensor(_FLOAT, output.shapes)])
    crops = _Crops(node, output, node.inputs[0], boxes, owners)
    dy = node.emit("Where", crops.inside, dy, node.scalar(0, 4))
    if node.attribute("method", "bilinear") == "nearest":
        gradient = crops.put([(crops.nearest, dy)])
    else:
        halves = crops.parts(dy, crops.y)
        quarters = [part for half in halves for part in crops.parts(half, crops.x)]
        gradient = crops.put(list(zip(crops.corners, quarters, strict=True)))
    return gradient if output.dtype == _FLOAT else node.cast(gradient, output.dtype)


@rule("CropAndResizeGradBoxes")
def crop_and_resize_gradient_of_boxes(
    node: Node, dy: ir.Value, images: ir.Value, boxes: ir.Value, owners: ir.Value
) -> ir.Value:
    """How a crop changes with each side of its box, as bilinear interpolation has it."""
    emit = node.emit
    crops = _Crops(node, node.inputs[1], node.inputs[0], boxes, owners)
    dy = emit("Where", crops.inside, dy, node.scalar(0, 4))
    top_left, top_right, bottom_left, bottom_right = (crops.read(images, corner) for corner in crops.corners)
    down = crops.between(emit("Sub", bottom_left, top_left), emit("Sub", bottom_right, top_right), crops.x)
    across = crops.between(emit("Sub", top_right, top_left), emit("Sub", bottom_right, bottom_left), crops.y)
    sides = []
    for axis, change in ((crops.y, down), (crops.x, across)):
        moved = emit("Mul", dy, change)
        sides.append(
            [emit("ReduceSum", emit("Mul", moved, w), node.int64([1, 2, 3]), keepdims=0) for w in axis.weights]
        )
    columns = [emit("Unsqueeze", side[end], node.int64([1])) for end in range(2) for side in sides]
    return emit("Concat", *columns, axis=1)


class _Axis:
    """Where the places of all crops lie on one axis of the images: [crops, rows, 1, 1] or [crops, 1, columns, 1].

    Attributes:
        low: The pixel before each place: int64.
        high: The pixel behind it.
        nearest: The pixel next to it.
        inside: Whether the place is inside of the image.
        share: How far it is from `low` to `high`.
        weights: How much each place moves with the first and with the last edge of its box.
    """

    def __init__(self, node: Node, sides: tuple[ir.Value, ir.Value], axis: int, length: int, count: int) -> None:
        emit = node.emit
        self._node, self._last = node, length - 1
        shape = [1, count, 1, 1] if axis == 0 else [1, 1, count, 1]
        steps = np.arange(count, dtype=_FLOAT).reshape(shape)
        first, last = sides
        if count > 1:
            step = emit("Mul", emit("Sub", last, first), self._number(self._last))
            step = emit("Div", step, self._number(count - 1))
            at = emit("Add", emit("Mul", first, self._number(self._last)), emit("Mul", steps, step))
            moves = steps * (_FLOAT.type(self._last) / _FLOAT.type(count - 1))
            self.weights = [self._last - moves, moves]
        else:
            middle = emit("Mul", emit("Add", first, last), self._number(0.5))
            at = emit("Mul", middle, self._number(self._last))
            self.weights = [np.full(shape, 0.5 * self._last, _FLOAT)] * 2
        below = emit("Floor", at)
        self.low, self.high = self._pixel(below), self._pixel(emit("Ceil", at))
        self.nearest = self._pixel(emit("Floor", emit("Add", at, self._number(0.5))))
        self.share = emit("Sub", at, below)
        ends = emit("GreaterOrEqual", at, self._number(0)), emit("LessOrEqual", at, self._number(self._last))
        self.inside = emit("And", *ends)

    def _number(self, number: float) -> npt.NDArray[np.generic]:
        return np.full((1, 1, 1, 1), number, _FLOAT)

    def _pixel(self, at: ir.Value) -> ir.Value:
        """A place as a pixel's number, which is some pixel's outside of the image, too."""
        bounded = self._node.emit("Min", self._node.emit("Max", at, self._number(0)), self._number(self._last))
        return self._node.cast(bounded, np.int64)


class _Crops:
    """The places of all crops. Pixels are the rows of a matrix, one image after the other."""

    def __init__(self, node: Node, images: Tensor, crops: Tensor, boxes: ir.Value, owners: ir.Value) -> None:
        emit = node.emit
        self._node, self._images = node, images
        sizes = [*images.shape[1:3], *crops.shape[1:3]]
        height, width, rows, columns = (size or 0 for size in sizes)
        if None in sizes:
            raise CannotLower("images or crops whose size only run time knows; fixed sizes are covered")
        self._width, self._places = width, crops.dims[:3]
        self._depth = images.dim(3)
        self._pixels = times(images.dim(0), height * width)
        edges = [emit("Unsqueeze", edge, node.int64([2, 3])) for edge in _columns(node, boxes)]
        self.y, self.x = (
            _Axis(node, (edges[axis], edges[axis + 2]), axis, length, count)
            for axis, (length, count) in enumerate(((height, rows), (width, columns)))
        )
        owner = node.reshape(node.cast(owners, np.int64), [crops.dim(0), 1, 1, 1])
        self._first = emit("Mul", owner, np.full((1, 1, 1, 1), height * width, np.int64))
        self.inside = emit("And", self.y.inside, self.x.inside)

    @property
    def nearest(self) -> ir.Value:
        """The nearest pixels."""
        return self._index(self.y.nearest, self.x.nearest)

    @property
    def corners(self) -> list[ir.Value]:
        """The pixels around: on top left and right, at the bottom left and right."""
        return [self._index(y, x) for y in (self.y.low, self.y.high) for x in (self.x.low, self.x.high)]

    def _index(self, y: ir.Value, x: ir.Value) -> ir.Value:
        emit = self._node.emit
        row = emit("Add", self._first, emit("Mul", y, np.full((1, 1, 1, 1), self._width, np.int64)))
        return self._node.reshape(emit("Add", row, x), self._places)

    def read(self, images: ir.Value, index: ir.Value) -> ir.Value:
        """The pixels with these numbers, as float32."""
        pixels = self._node.reshape(images, [self._pixels, self._depth])
        found = self._node.emit("Gather", pixels, index, axis=0)
        return found if self._images.dtype == _FLOAT else self._node.cast(found, _FLOAT)

    def put(self, parts: list[tuple[ir.Value, ir.Value]]) -> ir.Value:
        """Images of the numbers put at pixels, added where these are the same."""
        node, count = self._node, self._places[0]
        for size in self._places[1:]:
            count = times(count, size[0])
        index = node.emit("Concat", *(node.reshape(index, [count, 1]) for index, _ in parts), axis=0)
        values = node.emit("Concat", *(node.reshape(part, [count, self._depth]) for _, part in parts), axis=0)
        base = node.emit("Expand", node.scalar(0, 2), node.vector([self._pixels, self._depth]))
        return node.reshape(emit_scatter(node, base, index, values, "add"), self._images.dims)

    def between(self, low: ir.Value, high: ir.Value, axis: _Axis) -> ir.Value:
        """What is between two pixels on an axis."""
        emit = self._node.emit
        return emit("Add", low, emit("Mul", emit("Sub", high, low), axis.share))

    def parts(self, value: ir.Value, axis: _Axis) -> tuple[ir.Value, ir.Value]:
        """The shares of two pixels on an axis."""
        emit = self._node.emit
        rest = emit("Sub", np.ones((1, 1, 1, 1), _FLOAT), axis.share)
        return emit("Mul", value, rest), emit("Mul", value, axis.share)


def _columns(node: Node, boxes: ir.Value) -> list[ir.Value]:
    """The four columns of the boxes."""
    return node.emit_many("Split", boxes, outputs=4, axis=1, num_outputs=4)
