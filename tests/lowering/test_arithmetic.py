"""Arithmetic, rounding, biases and casts against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


def fixed(values: list[float]) -> Callable[[np.random.Generator, tuple[int, ...]], Any]:
    """The same values again and again, whatever the shape."""
    return lambda rng, shape: np.resize(np.array(values), shape)


BROADCASTS = {
    "same": ((None, 4), (None, 4)),
    "vector": ((None, 3, 4), (4,)),
    "scalar": ((), (None, 3, 4)),
    "both": ((None, 1, 4), (3, 1)),
    "column": ((None, 4), (None, 1)),
}


@pytest.mark.parametrize("shapes", BROADCASTS.values(), ids=BROADCASTS.keys())
def test_binary_operations_broadcast_with_gradients(shapes: tuple[tuple[int | None, ...], ...]) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        away = tf.abs(y) + 1
        return [x + y, x - y, x * y, x / away, tf.maximum(x, y), tf.minimum(x, y), tf.math.squared_difference(x, y)]

    check(gradients(function), {"x": Argument(shapes[0]), "y": Argument(shapes[1])})


def test_unary_operations_with_gradients() -> None:
    def function(x: Any) -> list[Any]:
        return [-x, tf.abs(x), tf.sign(x), tf.square(x), tf.math.reciprocal(x), tf.add_n([x, x * x, -3 * x])]

    check(gradients(function), {"x": Argument((None, 3, 4))})


def test_division_without_nan() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [
            tf.math.divide_no_nan(x, y),
            tf.math.multiply_no_nan(x, y),
            tf.math.xdivy(y, x + 3),
            tf.math.xlogy(y, tf.abs(x)),
            tf.math.xlog1py(y, tf.abs(x)),
        ]

    zeros = Argument((None, 6), make=fixed([0.0, 2.0, -1.5, 0.0, 3.0]))
    check(gradients(function, is_smooth=False), {"x": Argument((None, 6)), "y": zeros})


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integer_division_has_tensorflow_s_signs(dtype: str) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [
            x // y,
            x % y,
            tf.truncatediv(x, y),
            tf.truncatemod(x, y),
            tf.raw_ops.Div(x=x, y=y),
            tf.maximum(x, y),
            tf.minimum(x, y),
            tf.floor(tf.cast(x, tf.float32) / 2),
        ]

    operands = {
        "x": Argument((None, 9), dtype, make=fixed([7, -7, 6, -6, 0, 1, -1, 127, -128])),
        "y": Argument((None, 9), dtype, make=fixed([2, -2, 3, -3, 5, 4, -4])),
    }
    check(function, operands, precisions=["float32"])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int16"])
def test_arithmetic_of_rarer_integers(dtype: str) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        results = [x + y, x * y, tf.maximum(x, y), tf.minimum(x, y), tf.raw_ops.FloorDiv(x=x, y=y)]
        return [*results, tf.bitwise.bitwise_and(x, y), tf.bitwise.bitwise_or(x, y), tf.bitwise.bitwise_xor(x, y)]

    operands = {"x": Argument((None, 5), dtype, high=100), "y": Argument((None, 5), dtype, make=fixed([1, 7, 20]))}
    check(function, operands, precisions=["float32"])


def test_float_floor_division_has_tensorflow_s_signs() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [tf.math.floordiv(x, y), tf.math.floormod(x, y), tf.truncatemod(x, y)]

    operands = {
        "x": Argument((None, 8), make=fixed([7.5, -7.5, 6.0, -6.0, 0.0, 0.5, -0.5])),
        "y": Argument((None, 8), make=fixed([2.0, -2.0, 3.0, -3.0, 1.5])),
    }
    check(function, operands)


def test_rounding_takes_halves_to_even() -> None:
    def function(x: Any) -> list[Any]:
        return [tf.round(x), tf.math.rint(x), tf.floor(x), tf.math.ceil(x), tf.clip_by_value(x, -1.0, 1.5)]

    halves = fixed([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, 3.7, -3.7])
    check(function, {"x": Argument((None, 9), make=halves)}, precisions=["float32"])


@pytest.mark.parametrize("shape", [(None, 3), (None, 2, 3), (None, 2, 4, 3), (None, 2, 4, 2, 3)])
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
def test_bias(data_format: str, shape: tuple[int | None, ...]) -> None:
    if data_format == "NCHW":
        shape = (None, 3, *shape[1:-1], *([2] if len(shape) == 2 else []))

    def function(x: Any, bias: Any) -> Any:
        return tf.raw_ops.BiasAdd(value=x, bias=bias, data_format=data_format)

    check(gradients(function), {"x": Argument(shape), "bias": Argument((3,))})


def test_casts() -> None:
    dtypes = [tf.float16, tf.float32, tf.float64, tf.int8, tf.int32, tf.int64, tf.uint8, tf.bool]

    def function(x: Any, y: Any, z: Any) -> list[Any]:
        return [tf.cast(source, dtype) for source in (x, y, z) for dtype in dtypes]

    operands = {
        "x": Argument((None, 4), "float32", make=lambda rng, shape: rng.uniform(0, 100, shape)),
        "y": Argument((None, 4), "int32", high=100),
        "z": Argument((None, 4), "bool"),
    }
    check(function, operands, precisions=["float32"], tolerance={"float32": 1e-6})


def test_identity_operations_add_no_node() -> None:
    def function(x: Any) -> Any:
        x = tf.stop_gradient(tf.identity(tf.debugging.check_numerics(x, "finite")))
        x = tf.raw_ops.Snapshot(input=tf.identity_n([x, x])[1])
        return tf.ensure_shape(x, (None, 3)) + 1

    model = check(function, {"x": Argument((None, 3))})
    assert [node.op_type for node in model.graph.node] == ["Add"]
