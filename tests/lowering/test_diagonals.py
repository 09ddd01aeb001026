"""Diagonals of matrices off the main one, and bands of them, with their gradients against TensorFlow."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedOperationError
from tests.lowering.conversion import Argument, check, gradients, lower

ALIGN = ["RIGHT_LEFT", "LEFT_RIGHT", "LEFT_LEFT", "RIGHT_RIGHT"]
SHAPES = [(3, 5), (5, 3), (4, 4), (1, 4), (4, 1)]
BANDS = [1, -1, 2, (-1, 1), (-2, 0), (1, 2), (-2, -1), (0, 0), (-9, 9)]


def band_within(band: Any, rows: int, columns: int) -> Any:
    """The band, as far as the matrix has it."""
    if not isinstance(band, tuple):
        return min(max(band, 1 - rows), columns - 1)
    lower, upper = (min(max(offset, 1 - rows), columns - 1) for offset in band)
    return lower, upper


@pytest.mark.parametrize("band", BANDS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_diagonals_there_and_back(shape: tuple[int, int], band: Any) -> None:
    """Each operation's gradient is another of the three."""
    k = band_within(band, *shape)
    longest = tf.linalg.diag_part(tf.zeros(shape), k=k).shape
    aligns = ALIGN if isinstance(k, tuple) else ALIGN[:1]

    def function(x: Any, y: Any) -> list[Any]:
        x, y, padding = tf.sin(x), tf.sin(y), tf.cast(7, x.dtype)
        made = []
        for align in aligns:
            made.append(tf.linalg.diag_part(x, k=k, padding_value=padding, align=align))
            made.append(
                tf.linalg.diag(y, k=k, num_rows=shape[0], num_cols=shape[1], padding_value=padding, align=align)
            )
        if not isinstance(k, tuple):  # TensorFlow's shape function refuses to put a band in any graph
            made.append(tf.linalg.set_diag(x, y, k=k))
        return made

    check(gradients(function), {"x": Argument((None, *shape)), "y": Argument((None, *longest))}, precisions=["float64"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "bool"])
def test_of_numbers_of_other_kinds(dtype: str) -> None:
    def function(x: Any) -> list[Any]:
        given = tf.cast(x, dtype)
        return [
            tf.linalg.diag_part(given, k=(-1, 2)),
            tf.linalg.diag(given, k=(-3, 0), num_rows=7, num_cols=4),
            tf.linalg.set_diag(given, given[:, 1:, 0], k=-1),
        ]

    check(function, {"x": Argument((None, 4, 4), "int32")}, precisions=["float32"])


def test_without_batch_and_with_more_of_it() -> None:
    def function(x: Any, y: Any, z: Any) -> list[Any]:
        return [
            tf.linalg.diag_part(x, k=1),
            tf.linalg.diag(y, k=-2),
            tf.linalg.diag_part(z, k=(0, 1)),
            tf.linalg.diag(z),
        ]

    check(gradients(function), {"x": Argument((4, 3)), "y": Argument((3,)), "z": Argument((None, 2, 3, 4))})


@pytest.mark.parametrize("offset", [-3, -1, 0, 1, 2])
def test_diagonals_of_keras(offset: int) -> None:
    def function(x: Any, y: Any) -> list[Any]:
        return [keras.ops.diagonal(x, offset, 1, 2), keras.ops.diag(y, offset), keras.ops.trace(x, offset, 1, 2)]

    check(gradients(function), {"x": Argument((None, 4, 3, 2)), "y": Argument((5,))})


def test_old_versions() -> None:
    def function(x: Any, y: Any) -> list[Any]:
        zero, one = tf.cast(0, x.dtype), tf.cast(1, x.dtype)
        raw = tf.raw_ops
        return [
            raw.MatrixDiag(diagonal=y),
            raw.MatrixDiagPart(input=x),
            raw.MatrixSetDiag(input=x, diagonal=y[:, :3]),
            raw.MatrixDiagV2(diagonal=y, k=2, num_rows=-1, num_cols=-1, padding_value=one),
            raw.MatrixDiagV2(diagonal=y, k=0, num_rows=4, num_cols=6, padding_value=one),
            raw.MatrixDiagPartV2(input=x, k=[-1, 2], padding_value=one),
            raw.MatrixDiagPartV2(input=x, k=[0, 0], padding_value=zero),
            raw.MatrixSetDiagV2(input=x, diagonal=y[:, :3], k=1),
        ]

    check(function, {"x": Argument((None, 3, 5)), "y": Argument((None, 4))})


def test_matrices_of_open_size_are_refused_off_the_main_diagonal() -> None:
    def function(x: Any) -> Any:
        products = tf.matmul(x, x, transpose_b=True)
        return tf.linalg.diag_part(products, k=1)

    with pytest.raises(UnsupportedOperationError, match="of these the main diagonal"):
        lower(function, {"x": Argument((None, 3))})


def test_an_unpadded_band_is_only_picked() -> None:
    proto = check(lambda x: tf.linalg.diag_part(x, k=1), {"x": Argument((None, 4, 4))}, precisions=["float32"])
    assert [node.op_type for node in proto.graph.node] == ["Reshape", "Gather"]
