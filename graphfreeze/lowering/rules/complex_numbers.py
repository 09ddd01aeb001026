"""Complex numbers, as pairs of real tensors. Sums, products and whatever moves elements take them too."""

from __future__ import annotations

import numpy as np

from graphfreeze.lowering.complex_numbers import of_parts, parts_of, real_arithmetic
from graphfreeze.lowering.rule import UNUSED, Node, rule
from graphfreeze.lowering.tensor import Tensor


@rule("Complex", inputs=(UNUSED,), takes_complex=True)
def complex_(node: Node) -> Tensor:
    """The complex numbers of real and imaginary parts."""
    real, imaginary = node.inputs
    if real.shapes != imaginary.shapes:
        real, imaginary = (_broadcast(node, tensor) for tensor in (real, imaginary))
    return of_parts(real, imaginary)


def _broadcast(node: Node, tensor: Tensor) -> Tensor:
    output = node.outputs[0]
    value = node.emit("Expand", node.value(tensor), node.shape(output))
    return node.lowering.tensor(value, tensor.dtype, output.dims)


@rule("Real", inputs=(UNUSED,), takes_complex=True)
def real(node: Node) -> Tensor:
    """The real parts."""
    return parts_of(node.lowering, node.inputs[0])[0]


@rule("Imag", inputs=(UNUSED,), takes_complex=True)
def imag(node: Node) -> Tensor:
    """The imaginary parts."""
    return parts_of(node.lowering, node.inputs[0])[1]


@rule("Conj", inputs=(UNUSED,), takes_complex=True)
def conj(node: Node) -> Tensor:
    """The complex conjugate: the imaginary parts change their sign."""
    (x,) = node.inputs
    if x.dtype.kind != "c":
        return x
    real, imaginary = parts_of(node.lowering, x)
    return of_parts(real, real_arithmetic(node.lowering, node.operation)("Neg", imaginary))


@rule("ComplexAbs", inputs=(UNUSED,), takes_complex=True)
def complex_abs(node: Node) -> Tensor:
    """The distance from zero, sqrt(re^2 + im^2)."""
    apply = real_arithmetic(node.lowering, node.operation)
    real, imaginary = parts_of(node.lowering, node.inputs[0])
    # Scaled by the larger part, so that no square leaves the range of the floats.
    sizes = apply("Abs", real), apply("Abs", imaginary)
    larger, smaller = apply("Maximum", *sizes), apply("Minimum", *sizes)
    ratio = apply("DivNoNan", smaller, larger)
    one = node.lowering.constant(np.ones((), larger.dtype))
    return apply("Mul", larger, apply("Sqrt", apply("AddV2", apply("Square", ratio), one)))
