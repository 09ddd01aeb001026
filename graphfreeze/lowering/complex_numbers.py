"""Complex numbers, which few ONNX operators take: a pair of real tensors.

What treats both parts alike (reshaping, slicing, adding) is lowered for each part by its own rule; products mix them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from graphfreeze.lowering.rule import CannotLower
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Edge, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["lower_by_parts", "of_parts", "parts_of", "real_arithmetic", "real_dtype"]

Parts = tuple[Tensor, Tensor]

_ALIKE = frozenset(
    {
        *("Add", "AddN", "AddV2", "BroadcastTo", "Concat", "ConcatV2", "Cumsum", "ExpandDims", "Fill", "Gather"),
        *("GatherNd", "GatherV2", "MatrixBandPart", "Mean", "MirrorPad", "Neg", "Pack", "Pad", "PadV2", "Reshape"),
        *("ReverseV2", "Roll", "ScatterNd", "Select", "SelectV2", "Slice", "Split", "SplitV", "Squeeze"),
        *("StridedSlice", "StridedSliceGrad", "Sub", "Sum", "Tile", "Transpose", "Unpack", "ZerosLike"),
    }
)
"""Operations that do to the real parts what they do to the imaginary ones."""

_REAL_TYPES = {tf.complex64.as_datatype_enum: tf.float32, tf.complex128.as_datatype_enum: tf.float64}


def real_dtype(tensor: Tensor) -> np.dtype[Any]:
    """The dtype of the parts of a complex tensor."""
    return np.dtype(np.float64 if tensor.dtype == np.complex128 else np.float32)


def parts_of(lowering: Lowering, tensor: Tensor) -> Parts:
    """The real and the imaginary parts of a complex tensor.

    Raises:
        CannotLower: It has none: it comes from a loop, a branch, or an input.
    """
    if tensor.parts is None:
        if tensor.known is None:
            raise CannotLower(
                "complex numbers that are an input of the step, or pass through a loop or a branch; those that the "
                "step makes and uses outside of loops are covered"
            )
        remade = lowering.remade(tensor) if tensor.constant is None else None
        if remade is not None:
            return parts_of(lowering, remade)
        dtype = real_dtype(tensor)
        real, imaginary = ([np.asarray(take(array), dtype) for array in tensor.known] for take in (np.real, np.imag))
        tensor.parts = lowering.known(real), lowering.known(imaginary)
    return tensor.parts


def of_parts(real: Tensor, imaginary: Tensor) -> Tensor:
    """The complex tensor of these parts, which have one shape."""
    dtype = np.dtype(np.complex128 if real.dtype == np.float64 else np.complex64)
    return Tensor(dtype, real.shapes, parts=(real, imaginary))


def lower_by_parts(
    lowering: Lowering, operation: Operation, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> list[Tensor]:
    """The outputs of an operation that is made for real numbers, on complex ones.

    Args:
        lowering: The graph that is being lowered.
        operation: The operation.
        inputs: Its inputs.
        outputs: Its outputs, with dtypes and shapes only.

    Raises:
        CannotLower: It is not known to treat both parts alike, and no product either.
    """
    if operation.type in _ALIKE:
        made = [_lower_part(lowering, operation, inputs, part) for part in range(2)]
        return [of_parts(*pair) if not pair[0].missing else pair[0] for pair in zip(*made, strict=True)]
    if operation.type in _PRODUCTS and not any(_flag(operation, name) for name in ("adj_x", "adj_y")):
        factors = [_as_parts(lowering, tensor) for tensor in inputs]
        return [of_parts(*_PRODUCTS[operation.type](real_arithmetic(lowering, operation), *factors))]
    if operation.type == "Cast":
        return [_cast(lowering, inputs[0], outputs[0])]
    raise CannotLower("complex numbers; real numbers are covered")


def _flag(operation: Operation, name: str) -> bool:
    value = operation.attributes.get(name)
    return value is not None and bool(value.b)


def _as_parts(lowering: Lowering, tensor: Tensor) -> Parts:
    return parts_of(lowering, tensor) if tensor.dtype.kind == "c" else (tensor, lowering.constant(tensor.dtype.type(0)))


def _lower_part(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor], part: int) -> list[Tensor]:
    real = Operation(operation.type, operation.name, list(operation.inputs), attributes=_real_attributes(operation))
    real.outputs = [Edge(edge.name, edge.dtype.real_dtype, edge.shape, real) for edge in operation.outputs]
    given = [parts_of(lowering, tensor)[part] if tensor.dtype.kind == "c" else tensor for tensor in inputs]
    return lowering.lower(real, given)


def _real_attributes(operation: Operation) -> dict[str, Any]:
    """The attributes with real dtypes in place of complex ones."""
    attributes = dict(operation.attributes)
    for name, value in attributes.items():
        if value.WhichOneof("value") == "type" and value.type in _REAL_TYPES:
            attributes[name] = attr_value_pb2.AttrValue(type=_REAL_TYPES[value.type].as_datatype_enum)
    return attributes


def _cast(lowering: Lowering, source: Tensor, output: Tensor) -> Tensor:
    """Real numbers as complex ones, or the other way round, or in another precision."""

    def to(tensor: Tensor, dtype: np.dtype[Any]) -> Tensor:
        if tensor.dtype == dtype:
            return tensor
        return lowering.tensor(lowering.builder.cast(lowering.value(tensor), dtype), dtype, tensor.dims)

    real, imaginary = parts_of(lowering, source) if source.dtype.kind == "c" else (source, None)
    if output.dtype.kind != "c":
        return to(real, output.dtype)
    dtype = real_dtype(output)
    if imaginary is None:
        zeros = lowering.builder.emit("Expand", np.zeros((1,) * output.rank, dtype), lowering.shape(output.dims))
        return of_parts(to(real, dtype), lowering.tensor(zeros, dtype, output.dims))
    return of_parts(to(real, dtype), to(imaginary, dtype))


# -- products, in real arithmetic

Arithmetic = Callable[..., Tensor]


def real_arithmetic(lowering: Lowering, operation: Operation) -> Arithmetic:
    """`f(op_type, *tensors)`: the result of an elementwise operation on real tensors, lowered by its own rule."""

    def apply(op_type: str, *tensors: Tensor) -> Tensor:
        dtype = tf.as_dtype(tensors[0].dtype)
        attributes = _real_attributes(operation) if op_type == operation.type else {}
        attributes["T"] = attr_value_pb2.AttrValue(type=dtype.as_datatype_enum)
        made = Operation(op_type, operation.name, [Edge(operation.name, dtype) for _ in tensors], attributes=attributes)
        made.outputs = [Edge(operation.name, dtype, None, made)]
        (result,) = lowering.lower(made, list(tensors))
        if result.missing:
            raise CannotLower(f"complex numbers: {op_type} on their parts cannot be lowered")
        return result

    return apply


def _product(kind: str) -> Callable[[Arithmetic, Parts, Parts], Parts]:
    def multiply(f: Arithmetic, a: Parts, b: Parts) -> Parts:
        real = f("Sub", f(kind, a[0], b[0]), f(kind, a[1], b[1]))
        return real, f("AddV2", f(kind, a[0], b[1]), f(kind, a[1], b[0]))

    return multiply


_multiply = _product("Mul")


def _divide(quotient: str) -> Callable[[Arithmetic, Parts, Parts], Parts]:
    def divide(f: Arithmetic, a: Parts, b: Parts) -> Parts:
        size = f("AddV2", f("Square", b[0]), f("Square", b[1]))
        real, imaginary = _multiply(f, a, (b[0], f("Neg", b[1])))
        return f(quotient, real, size), f(quotient, imaginary, size)

    return divide


def _square(f: Arithmetic, a: Parts) -> Parts:
    return _multiply(f, a, a)


_PRODUCTS: dict[str, Callable[..., Parts]] = {
    **{kind: _product(kind) for kind in ("Mul", "MatMul", "BatchMatMul", "BatchMatMulV2")},
    "Square": _square,
    "RealDiv": _divide("RealDiv"),
    "Div": _divide("Div"),
    "DivNoNan": _divide("DivNoNan"),
}
