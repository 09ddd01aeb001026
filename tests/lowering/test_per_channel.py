"""Images multiplied by a number per channel, with another one added, in a single pass over the image."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import tensorflow as tf

from tests.lowering.conversion import Argument, check, gradients

CHANNELS = 5
VECTOR = Argument((CHANNELS,))


def convolved(x: Any) -> Any:
    """An image whose channels come second in ONNX."""
    return tf.nn.max_pool(x, 2, 1, "VALID")


@pytest.mark.parametrize("size", [(6,), (4, 5), (3, 4, 2)], ids=["line", "plane", "volume"])
def test_batch_normalization_of_single_operations_with_gradients(size: tuple[int, ...]) -> None:
    def function(x: Any, offset: Any, scale: Any) -> Any:
        y = convolved(x)
        mean, variance = tf.nn.moments(y, [*range(1 + len(size))])
        return tf.nn.batch_normalization(y, mean, variance, offset, scale, 1e-3)

    precisions = ["float32"] if len(size) == 3 else ["float32", "float64"]
    arguments = {"x": Argument((None, *size, CHANNELS)), "offset": VECTOR, "scale": VECTOR}
    proto = check(gradients(function), arguments, precisions=precisions, tolerance={"float32": 1e-5})
    counts = Counter(node.op_type for node in proto.graph.node)
    assert counts["BatchNormalization"] == 2, "one forward, one for the gradient"


@pytest.mark.parametrize(
    "shape", [(CHANNELS,), (1, 1, 1, CHANNELS), (1, 1, CHANNELS), ()], ids=lambda shape: f"rank {len(shape)}"
)
def test_shapes_of_what_is_added(shape: tuple[int, ...]) -> None:
    def function(x: Any, scale: Any, offset: Any) -> list[Any]:
        product = convolved(x) * scale
        return [product + offset, offset + product, tf.add_n([product, convolved(-x) + offset]), product]

    arguments = {"x": Argument((None, 4, 5, CHANNELS)), "scale": Argument(shape), "offset": Argument(shape)}
    check(gradients(function), arguments)


def test_what_is_no_number_per_channel() -> None:
    def function(x: Any, row: Any, one: Any, y: Any) -> list[Any]:
        image = convolved(x)
        return [image * row + row, image * one + one, image * image + one, tf.add_n([image * one, image, image]) + y]

    arguments = {
        "x": Argument((None, 4, 4, 3)),
        "row": Argument((1, 3, 1, 1)),
        "one": Argument((1,)),
        "y": Argument((None, 1, 1, 3)),
    }
    check(gradients(function), arguments)


def test_one_channel() -> None:
    check(lambda x, v: convolved(x) * v + v, {"x": Argument((None, 4, 4, 1)), "v": Argument((1,))})
