"""Slices and their gradients against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

X = Argument((None, 5, 4))
SLICES: dict[str, Callable[[Any], Any]] = {
    "begin": lambda x: x[:, 1:],
    "end": lambda x: x[:, :-1],
    "both": lambda x: x[:, 1:3, 2:],
    "stride": lambda x: x[:, ::2, 1::2],
    "stride that ends early": lambda x: x[:, 0:4:3],
    "reverse": lambda x: x[:, ::-1],
    "reverse stride": lambda x: x[:, 4:0:-2, ::-3],
    "reverse to the start": lambda x: x[:, 2::-1],
    "batch reversed": lambda x: x[::-1],
    "batch begin": lambda x: x[1:],
    "batch end": lambda x: x[:2],
    "batch but the last": lambda x: x[:-1],
    "batch stride": lambda x: x[:3:2],
    "number": lambda x: x[:, 2],
    "negative number": lambda x: x[:, -1, -2],
    "first of the batch": lambda x: x[0],
    "last of the batch": lambda x: x[-1],
    "new axis": lambda x: x[:, tf.newaxis, 1:, tf.newaxis],
    "ellipsis": lambda x: x[..., 1],
    "ellipsis between": lambda x: x[1:, ..., 1:2],
    "everything": lambda x: x[:, None, ..., -1, tf.newaxis][:, 0, ::2],
    "clipped": lambda x: x[:, 1:100, -100:2],
    "slice": lambda x: tf.slice(x, [0, 1, 2], [-1, 3, 2]),
    "slice of the batch": lambda x: tf.slice(x, [1, 0, 0], [2, -1, -1]),
    "slice all": lambda x: tf.slice(x, [0, 0, 0], [-1, -1, -1]),
}


@pytest.mark.parametrize("group", range(5))
def test_slices_with_gradients(group: int) -> None:
    chosen = list(SLICES.values())[group::5]
    check(gradients(lambda x: [function(x) for function in chosen]), {"x": X})


def test_indices_that_are_computed() -> None:
    def function(x: Any, i: Any, j: Any) -> list[Any]:
        return [x[:, i], x[:, i, j], x[..., j], tf.slice(x, [0, i, 0], [2, 2, 4])]

    operands = {"x": X, "i": Argument((), "int32"), "j": Argument((), "int32")}
    check(function, operands, precisions=["float32"])


def test_windows_that_move() -> None:
    def function(x: Any, i: Any, j: Any) -> list[Any]:
        return [x[:, i : i + 2, 1:3], x[:, i : i + 3, j : 1 + j], x[1:, :, j : j + 2], x[i : i + 2]]

    operands = {"x": X, "i": Argument((), "int32", high=2), "j": Argument((), "int32")}
    check(gradients(function), operands)


def test_a_window_whose_size_is_computed_is_refused() -> None:
    operands = {"x": X, "i": Argument((), "int32"), "j": Argument((), "int32")}
    with pytest.raises(UnsupportedOperationError, match="shape depends on values that are known only at run time"):
        lower(lambda x, i, j: x[:, i : i + j], operands)


def test_a_whole_slice_adds_no_node() -> None:
    model = check(lambda x: x[:, :, :] + 1, {"x": X})
    assert [node.op_type for node in model.graph.node] == ["Add"]
