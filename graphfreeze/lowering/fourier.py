"""Discrete Fourier transforms as products with matrices, which every device has kernels for.

ONNX has DFT, but of its runtimes only onnxruntime on the CPU does. A transform that is too long for one matrix is split
after Cooley and Tukey into transforms of its factors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Dim

__all__ = ["DIRECT", "Parts", "emit_transform", "matrices", "multiply"]

DIRECT = 512
"""Up to this length a transform is one product."""

_LONGEST_PRIME = 4096

Parts = tuple[ir.Value, ir.Value | None]
"""Real and imaginary parts; None for zeros."""

Matrices = tuple[npt.NDArray[Any], npt.NDArray[Any]]


def matrices(rows: int, columns: int, length: int, sign: int) -> Matrices:
    """Cosine and `sign` times sine of 2 pi row column / length, exact where they are 0, 1 or -1."""
    turns = np.outer(np.arange(rows), np.arange(columns)) % length
    angles = 2 * np.pi / length * turns
    return _without_residue(np.cos(angles)), _without_residue(sign * np.sin(angles))


def _without_residue(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The matrix with 0 for what is left of it by the rounding of pi."""
    return np.where(np.abs(matrix) < 1e-15, 0.0, matrix)


def multiply(node: Node, x: Parts, by: Matrices, dtype: np.dtype[Any]) -> tuple[ir.Value, ir.Value]:
    """The complex product of rows with a matrix."""
    cosine, sine = (np.ascontiguousarray(matrix, dtype) for matrix in by)
    real, imaginary = x
    products = [node.emit("MatMul", real, cosine), node.emit("MatMul", real, sine)]
    if imaginary is None:
        return products[0], products[1]
    return (
        node.emit("Sub", products[0], node.emit("MatMul", imaginary, sine)),
        node.emit("Add", products[1], node.emit("MatMul", imaginary, cosine)),
    )


def emit_transform(
    node: Node, x: Parts, dims: list[Dim], length: int, sign: int, dtype: np.dtype[Any]
) -> tuple[ir.Value, ir.Value]:
    """The transform along the last axis, not scaled.

    Args:
        node: The operation that is being lowered.
        x: What is transformed.
        dims: Its dimensions.
        length: The last of them.
        sign: -1 for a transform, 1 for an inverse one.
        dtype: Of the parts.

    Raises:
        CannotLower: The length is a large prime.
    """
    first = _factor(length)
    if first == 1:
        return multiply(node, x, matrices(length, length, length, sign), dtype)
    second = length // first
    *outer, _ = dims
    one = (1,) * len(node.lowering.samples)
    split = [*outer, (first,) * len(one), (second,) * len(one)]
    swapped = [*outer, split[-1], split[-2]]
    # x[second * n1 + n2]: transforms over n1, turned by n1' n2, transforms over n2.
    columns = _map(x, lambda part: _swap(node, node.reshape(part, split), len(split)))
    done: Parts = emit_transform(node, columns, swapped, first, sign, dtype)
    turned = _turn(node, done, matrices(second, first, length, sign), len(split), dtype)
    rows = _map(turned, lambda part: _swap(node, part, len(split)))
    done = emit_transform(node, rows, split, second, sign, dtype)
    real, imaginary = _map(done, lambda part: node.reshape(_swap(node, part, len(split)), dims))
    assert imaginary is not None
    return real, imaginary


def _factor(length: int) -> int:
    """The largest factor up to the square root, or 1 where one product does."""
    if length <= DIRECT:
        return 1
    found = next(factor for factor in range(math.isqrt(length), 0, -1) if length % factor == 0)
    if found == 1 and length > _LONGEST_PRIME:
        raise CannotLower(
            f"a Fourier transform of the prime length {length}; primes up to {_LONGEST_PRIME} are covered"
        )
    return found


def _turn(node: Node, x: Parts, by: Matrices, rank: int, dtype: np.dtype[Any]) -> Parts:
    cosine, sine = (m.astype(dtype).reshape((1,) * (rank - 2) + m.shape) for m in by)
    real, imaginary = x
    assert imaginary is not None
    return (
        node.emit("Sub", node.emit("Mul", real, cosine), node.emit("Mul", imaginary, sine)),
        node.emit("Add", node.emit("Mul", real, sine), node.emit("Mul", imaginary, cosine)),
    )


def _map(x: Parts, function: Any) -> Parts:
    real, imaginary = x
    return function(real), None if imaginary is None else function(imaginary)


def _swap(node: Node, value: ir.Value, rank: int) -> ir.Value:
    return node.transpose(value, [*range(rank - 2), rank - 1, rank - 2])
