"""Discrete Fourier transforms over the last one, two or three axes, as products with matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.complex_numbers import of_parts, parts_of
from graphfreeze.lowering.fourier import DIRECT, Parts, emit_transform, matrices, multiply
from graphfreeze.lowering.rule import KNOWN, UNUSED, CannotLower, Node, rule
from graphfreeze.lowering.tensor import Dim, Tensor


class _Transform:
    """The parts of an array on their way through transforms of several axes."""

    def __init__(self, node: Node, parts: Parts, dims: list[Dim], dtype: np.dtype[Any]) -> None:
        self.node = node
        self.parts = parts
        self.dims = dims
        self.dtype = dtype

    def length(self, axis: int) -> int:
        """The size of an axis.

        Raises:
            CannotLower: It follows the batch.
        """
        if len(set(self.dims[axis])) > 1:
            raise CannotLower("a Fourier transform over an axis whose length is not fixed; fixed lengths are covered")
        return self.dims[axis][0]

    def transform(self, axis: int, sign: int) -> None:
        """Transform along an axis, not scaled."""
        length = self.length(axis)
        self._move_last(axis)
        self.parts = emit_transform(self.node, self.parts, self.dims, length, sign, self.dtype)
        self._move_last(axis)

    def scale(self, factor: float) -> None:
        """Multiply by a number."""
        number = np.full((1,) * len(self.dims), factor, self.dtype)
        self._map(lambda part: self.node.emit("Mul", part, number))

    def resize(self, axis: int, length: int) -> None:
        """Cut an axis off at a length, or fill it up with zeros."""
        size, rank = self.length(axis), len(self.dims)
        if size > length:
            int64 = self.node.int64
            self._map(lambda p: self.node.emit("Slice", p, int64([0]), int64([length]), int64([axis])))
        elif size < length:
            pads = np.zeros(2 * rank, np.int64)
            pads[rank + axis] = length - size
            self._map(lambda part: self.node.emit("Pad", part, pads, np.zeros((), self.dtype)))
        self.dims[axis] = (length,) * len(self.node.lowering.samples)

    def to_half(self, length: int) -> None:
        """The transform of real numbers along the last axis, of which the second half mirrors the first."""
        axis, bins = len(self.dims) - 1, length // 2 + 1
        size = min(self.length(axis), length)
        if length <= DIRECT:
            self.resize(axis, size)
            self.parts = multiply(self.node, self.parts, matrices(size, bins, length, -1), self.dtype)
            self.dims[axis] = (bins,) * len(self.node.lowering.samples)
            return
        self.resize(axis, length)
        self.parts = emit_transform(self.node, self.parts, self.dims, length, -1, self.dtype)
        self.resize(axis, bins)

    def from_half(self, length: int) -> ir.Value:
        """The real numbers, `length` times, whose transform along the last axis has this first half."""
        axis, bins = len(self.dims) - 1, length // 2 + 1
        real, imaginary = self.parts
        assert imaginary is not None
        if length <= DIRECT:
            self.resize(axis, min(self.length(axis), bins))
            real, imaginary = self.parts
            cosine, sine = matrices(self.length(axis), length, length, -1)
            # Each bin but the first, and the middle one, counts for its mirror image too.
            twice = np.array([1 if 2 * k in (0, length) else 2 for k in range(len(cosine))]).reshape(-1, 1)
            products = [
                self.node.emit("MatMul", part, (matrix * twice).astype(self.dtype))
                for part, matrix in ((real, cosine), (imaginary, sine))
            ]
            return self.node.emit("Add", *products)
        self.resize(axis, bins)
        int64 = self.node.int64
        mirrored = length - bins

        def mirror(part: ir.Value) -> ir.Value:
            steps = (int64([mirrored]), int64([0]), int64([axis]), int64([-1]))
            return self.node.emit("Slice", part, *steps)

        real, imaginary = self.parts
        assert imaginary is not None
        negative = self.node.emit("Neg", mirror(imaginary))
        self.parts = (
            self.node.emit("Concat", real, mirror(real), axis=axis),
            self.node.emit("Concat", imaginary, negative, axis=axis),
        )
        self.dims[axis] = (length,) * len(self.node.lowering.samples)
        return emit_transform(self.node, self.parts, self.dims, length, 1, self.dtype)[0]

    def _move_last(self, axis: int) -> None:
        """Exchange an axis and the last."""
        last = len(self.dims) - 1
        if axis == last:
            return
        order = list(range(last + 1))
        order[axis], order[last] = last, axis
        self._map(lambda part: self.node.transpose(part, order))
        self.dims[axis], self.dims[last] = self.dims[last], self.dims[axis]

    def _map(self, function: Any) -> None:
        real, imaginary = self.parts
        self.parts = function(real), None if imaginary is None else function(imaginary)


def _start(node: Node) -> _Transform:
    source = node.inputs[0]
    if source.dtype.kind == "c":
        real, imaginary = parts_of(node.lowering, source)
        return _Transform(node, (node.value(real), node.value(imaginary)), source.dims, real.dtype)
    return _Transform(node, (node.value(source), None), source.dims, source.dtype)


def _result(node: Node, made: _Transform) -> Tensor:
    real, imaginary = (
        node.lowering.tensor(part, made.dtype, node.outputs[0].dims) for part in made.parts if part is not None
    )
    return of_parts(real, imaginary)


def _axes(node: Node) -> range:
    count = int(node.type[-2]) if node.type.endswith("D") else 1
    rank = node.inputs[0].rank
    return range(rank - count, rank)


@rule("FFT", "FFT2D", "FFT3D", inputs=(UNUSED,), takes_complex=True)
def transform(node: Node) -> Tensor:
    """The discrete Fourier transform."""
    made = _start(node)
    for axis in _axes(node):
        made.transform(axis, -1)
    return _result(node, made)


@rule("IFFT", "IFFT2D", "IFFT3D", inputs=(UNUSED,), takes_complex=True)
def inverse(node: Node) -> Tensor:
    """The inverse of the discrete Fourier transform."""
    made = _start(node)
    for axis in _axes(node):
        made.transform(axis, 1)
    made.scale(1 / np.prod([made.length(axis) for axis in _axes(node)]))
    return _result(node, made)


@rule("RFFT", "RFFT2D", "RFFT3D", inputs=(UNUSED, KNOWN), takes_complex=True)
def transform_of_real(node: Node, lengths: npt.NDArray[Any]) -> Tensor:
    """The first half of the transform of real numbers, which the second half mirrors."""
    made = _start(node)
    *outer, _ = zip(_axes(node), lengths, strict=True)
    made.to_half(int(lengths[-1]))
    for axis, length in outer:
        made.resize(axis, int(length))
        made.transform(axis, -1)
    return _result(node, made)


@rule("IRFFT", "IRFFT2D", "IRFFT3D", inputs=(UNUSED, KNOWN), takes_complex=True)
def inverse_to_real(node: Node, lengths: npt.NDArray[Any]) -> ir.Value:
    """The real numbers whose transform has this first half."""
    made = _start(node)
    *outer, _ = zip(_axes(node), lengths, strict=True)
    for axis, length in outer:
        made.resize(axis, int(length))
        made.transform(axis, 1)
    made.parts = made.from_half(int(lengths[-1])), None
    made.scale(1 / float(np.prod([int(length) for length in lengths])))
    return made.parts[0]
