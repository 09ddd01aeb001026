"""Dilated convolutions are found again where TensorFlow traced them through blocks of space."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import onnx_ir as ir
import pytest
import tensorflow as tf

from graphfreeze.lowering.model import Lowerer
from graphfreeze.training.functionalise import functionalise
from tests.lowering.conversion import Argument, check

layers = keras.layers
LAYERS: list[tuple[Callable[[], Any], tuple[int, ...]]] = [
    (lambda: layers.Conv1D(4, 3, dilation_rate=2), (9, 3)),
    (lambda: layers.Conv1D(4, 3, dilation_rate=2, padding="same"), (8, 3)),
    (lambda: layers.Conv1D(4, 2, dilation_rate=4, padding="causal"), (17, 3)),
    (lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same"), (8, 9, 3)),
    (lambda: layers.Conv2D(4, (3, 2), dilation_rate=(2, 3), padding="valid"), (9, 8, 3)),
    (lambda: layers.Conv2D(4, (3, 1), dilation_rate=(2, 1), padding="same"), (7, 8, 3)),
    (lambda: layers.Conv2D(4, 3, dilation_rate=3, groups=2, padding="same"), (8, 8, 4)),
    (lambda: layers.DepthwiseConv2D(3, dilation_rate=2, depth_multiplier=2), (8, 9, 3)),
    (lambda: layers.SeparableConv2D(4, 3, dilation_rate=2, padding="same"), (8, 9, 3)),
    (lambda: layers.Conv3D(4, 2, dilation_rate=2, padding="same"), (6, 5, 6, 2)),
    (lambda: layers.Conv3D(4, 2, dilation_rate=(3, 2, 2)), (6, 5, 6, 2)),
    (lambda: layers.Conv2D(4, 3, dilation_rate=2, padding="same", data_format="channels_first"), (3, 8, 9)),
    (lambda: layers.Conv2D(4, (3, 2), dilation_rate=(2, 3), data_format="channels_first"), (3, 9, 8)),
]


@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_dilated_layers_with_gradients(index: int) -> None:
    make, shape = LAYERS[index]
    layer = make()
    layer.build((None, *shape))
    variables = [variable.value for variable in layer.variables]

    def function(x: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return [y, *tape.gradient(y, [x, *variables], output_gradients=tf.square(tf.stop_gradient(y)))]

    proto = check(function, {"x": Argument((None, *shape))}, precisions=["float32"], variables=variables)
    moved = re.compile("(SpaceToBatchND|BatchToSpaceND)/(Pad|Reshape|Slice|Transpose_)")
    assert not [node.name for node in proto.graph.node if moved.search(node.name)]


def test_volumes_of_unequal_dilations() -> None:
    layer = layers.Conv3D(4, 2, dilation_rate=(1, 2, 3))
    layer.build((None, 6, 5, 6, 2))
    variables = [variable.value for variable in layer.variables]
    check(lambda x: [layer(x)], {"x": Argument((None, 6, 5, 6, 2))}, precisions=["float32"], variables=variables)


def test_blocks_around_something_else_stay() -> None:
    def function(x: Any, w: Any) -> list[Any]:
        blocks = tf.space_to_batch(x, [2, 2], [[0, 0], [0, 0]])
        inner = tf.nn.conv2d(blocks, w, 1, "SAME")
        shifted = tf.nn.conv2d(blocks, w, 1, "VALID") + 1
        return [
            tf.batch_to_space(inner, [2, 2], [[0, 0], [0, 0]]),
            tf.batch_to_space(shifted, [2, 2], [[0, 0], [0, 0]]),
        ]

    arguments = {"x": Argument((None, 8, 8, 2)), "w": Argument((3, 3, 2, 2))}
    check(function, arguments, precisions=["float32"])


def test_a_convolution_that_is_also_used_in_blocks_stays_for_that_use() -> None:
    def function(x: Any, w: Any) -> list[Any]:
        blocks = tf.space_to_batch(x, [2, 1], [[1, 1], [0, 0]])
        inner = tf.nn.conv2d(blocks, w, 1, "VALID")
        return [
            inner,
            tf.batch_to_space(inner, [2, 1], [[1, 0], [0, 0]]),
            tf.batch_to_space(inner, [1, 2], [[0, 0]] * 2),
        ]

    arguments = {"x": Argument((None, 8, 8, 2)), "w": Argument((3, 3, 2, 2))}
    check(function, arguments, precisions=["float32"])


def test_the_graph_itself_does_not_change() -> None:
    """The graphs of a training step share operations, and are lowered one after the other."""

    def function(x: Any, w: Any) -> list[Any]:
        return [tf.nn.relu(tf.nn.convolution(x, w, padding="SAME", dilations=2))]

    specs = [tf.TensorSpec((None, 8, 8, 2)), tf.TensorSpec((3, 3, 2, 2))]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    named = functionalise(concrete, ["x", "w"], ["y"], {})
    before = [(operation.type, list(operation.inputs)) for operation in named.graph.operations]
    assert "SpaceToBatchND" in dict(before)
    first, second = (ir.to_proto(Lowerer().lower(named, "test")) for _ in range(2))
    assert [(operation.type, list(operation.inputs)) for operation in named.graph.operations] == before
    assert first == second
