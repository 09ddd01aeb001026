"""Products of matrices and of vectors against TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients


@pytest.mark.parametrize(("transpose_a", "transpose_b"), [(False, False), (True, False), (False, True), (True, True)])
def test_mat_mul_with_gradients(transpose_a: bool, transpose_b: bool) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        y = tf.transpose(y) if transpose_b else y
        return [tf.matmul(x, y, transpose_a=transpose_a, transpose_b=transpose_b)]

    y = Argument((None, 4) if transpose_a else (3, 4))
    check(gradients(function), {"x": Argument((None, 3)), "y": y})


def test_batch_mat_mul_with_gradients() -> None:
    def function(x: Any, y: Any, z: Any) -> list[Any]:
        products = [tf.matmul(x, y), tf.matmul(x, y, transpose_a=True, transpose_b=True)]
        return [*products, tf.matmul(x, x, transpose_b=True), tf.matmul(x, z), tf.matmul(x[:, None], z), x @ z]

    operands = {"x": Argument((None, 3, 3)), "y": Argument((None, 3, 3)), "z": Argument((3, 3))}
    check(gradients(function), operands)


def test_integer_mat_mul() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [tf.matmul(x, y), tf.matmul(x, y, transpose_b=True), tf.matmul(x, x, transpose_a=True)]

    check(
        function,
        {"x": Argument((None, 3), "int32", high=9), "y": Argument((3, 3), "int32", high=9)},
        precisions=["float32"],
    )


def test_products_of_whole_numbers_of_few_bits() -> None:
    def function(x: Any, y: Any, z: Any) -> list[Any]:
        wide = tf.matmul(x[:, None], y[None], output_type=tf.int32)
        turned = tf.raw_ops.BatchMatMulV3(x=x[:, None], y=y[None], Tout=tf.int32, adj_y=True)
        return [wide, turned, tf.matmul(z, z, transpose_b=True, output_type=tf.int32)]

    def every(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return rng.integers(-128, 128, shape)

    arguments = {
        "x": Argument((None, 30), "int8", make=every),
        "y": Argument((30, 30), "int8", make=every),
        "z": Argument((None, 30), "int8", make=every),
    }
    model = check(function, arguments, precisions=["float32"])
    assert [node.op_type for node in model.graph.node].count("MatMulInteger") == 3


EQUATIONS = [
    ("abc,cd->abd", (None, 2, 3), (3, 4)),
    ("abc,cde->abde", (None, 2, 3), (3, 2, 4)),
    ("abcd,cde->abe", (None, 2, 3, 4), (3, 4, 2)),
    ("aecd,abcd->acbe", (None, 3, 2, 4), (None, 5, 2, 4)),
    ("acbe,aecd->abcd", (None, 2, 5, 3), (None, 3, 2, 4)),
    ("btnh,bsnh->bnts", (None, 3, 2, 4), (None, 5, 2, 4)),
    ("...a,ab->...b", (None, 2, 3), (3, 4)),
    ("...ab,...bc->...ac", (None, 2, 2, 3), (3, 4)),
    ("...ab,...cb->...ac", (None, 1, 2, 3), (None, 4, 5, 3)),
    ("ab,ab->ab", (None, 3), (None, 3)),
    ("ab,ab->a", (None, 3), (None, 3)),
    ("ab,ab->", (None, 3), (None, 3)),
    ("a,b->ab", (None,), (3,)),
    ("ab,cd->ac", (None, 3), (2, 4)),
    ("abc,b->ca", (None, 3, 2), (3,)),
]


@pytest.mark.parametrize(("equation", "left", "right"), EQUATIONS, ids=[case[0] for case in EQUATIONS])
def test_einsum_of_two(equation: str, left: tuple[int | None, ...], right: tuple[int | None, ...]) -> None:
    model = check(
        gradients(lambda x, y: tf.einsum(equation, x, y)),
        {"x": Argument(left), "y": Argument(right)},
    )
    assert not any(node.op_type == "Einsum" for node in model.graph.node)


@pytest.mark.parametrize("equation", ["abc->cab", "abc->ac", "abc->", "a...->...a", "...c->..."])
def test_einsum_of_one(equation: str) -> None:
    check(gradients(lambda x: tf.einsum(equation, x)), {"x": Argument((None, 3, 4))})


def test_einsum_of_a_diagonal_is_onnx_s() -> None:
    model: onnx.ModelProto = check(
        lambda x: tf.raw_ops.Einsum(inputs=[x], equation="abb->a"), {"x": Argument((None, 3, 3))}
    )
    assert sum(node.op_type == "Einsum" for node in model.graph.node) == 1


def test_a_product_over_the_batch_needs_no_known_size() -> None:
    check(gradients(lambda x, y: tf.einsum("ab,ac->bc", x, y)), {"x": Argument((None, 3)), "y": Argument((None, 2))})
    check(
        lambda x: tf.tensordot(x, np.ones((4, 3, 2), "float64").astype(x.dtype.name), [[2, 1], [0, 1]]),
        {"x": Argument((None, 3, 4))},
    )


@pytest.mark.parametrize("batch", [(None,), (None, 3), (2,)])
def test_the_gradient_of_a_kernel_is_one_product(batch: tuple[int | None, ...]) -> None:
    """Not a product for each example, and then their sum."""
    operands = {"x": Argument((*batch, 5, 4)), "kernel": Argument((4, 2))}
    proto = check(gradients(tf.matmul), operands)
    made = [node.op_type for node in proto.graph.node]
    assert (made.count("MatMul"), made.count("Gemm"), made.count("ReduceSum")) == (2, 1, 0)


def test_sums_of_other_products() -> None:
    def function(x: Any, y: Any, z: Any) -> list[Any]:
        product = tf.matmul(x, y, transpose_a=True)
        sums = [tf.reduce_sum(product, axis) for axis in ([0], [1], [0, 1], [0, 1, 2], [0, 1, 2, 3], [2])]
        kept = tf.reduce_sum(product, [0, 1], keepdims=True)
        broadcast = tf.reduce_sum(tf.matmul(x, z, transpose_a=True), [0, 1])
        return [*sums, kept, broadcast, tf.reduce_sum(tf.matmul(x, y, transpose_a=True, transpose_b=True), [0, 1])]

    check(function, {"x": Argument((None, 2, 3, 3)), "y": Argument((None, 2, 3, 3)), "z": Argument((2, 3, 4))})


@pytest.mark.parametrize("shape", [(None, 3), (None, 4, 3), (3,), (2, None, 1, 3)], ids=str)
def test_cross_products(shape: tuple[int | None, ...]) -> None:
    check(gradients(tf.linalg.cross), {"x": Argument(shape), "y": Argument(shape)})


def test_cross_products_of_keras() -> None:
    """Of vectors of two elements, along other axes, broadcast; and of whole numbers."""

    def function(x: Any, y: Any, whole: Any) -> list[Any]:
        cross = keras.ops.cross
        made = [cross(x[..., :2], y[..., :2]), cross(x, y[..., :2]), cross(x, y, axis=1), cross(x, y[:1])]
        return [*made, tf.linalg.cross(whole, whole[::-1])]

    arguments = {"x": Argument((None, 3, 3)), "y": Argument((None, 3, 3)), "whole": Argument((4, 3), "int32", high=9)}
    check(gradients(function), arguments)
