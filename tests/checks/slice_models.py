"""Small models of every kind of layer, and which whole rows, columns or filters of their weights are frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

LOSS = "sparse_categorical_crossentropy:from_logits=true"
STEPS = 4
layers = keras.layers
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Net:
    """A model, and how the slices of some of its variables are frozen.

    Attributes:
        build: Makes the layers before the scores.
        x: The shape of an example.
        freeze: Selectors.
        slices: Variable -> axis and number of the slices that train.
        words: Whether examples are integers, below 12.
    """

    build: Callable[[], list[Any]]
    x: tuple[int, ...]
    freeze: tuple[str, ...]
    slices: dict[str, tuple[int, int]]
    words: bool = False


def bag() -> list[Any]:
    return [layers.Embedding(12, 4, name="table"), layers.GlobalAveragePooling1D(), layers.Dense(9, name="hidden")]


def recurrent() -> list[Any]:
    return [layers.Embedding(12, 4, name="table"), layers.LSTM(4, name="lstm")]


def dense() -> list[Any]:
    return [layers.Dense(9, "tanh", name="hidden"), layers.Dense(24, "tanh", name="wide")]


def convolutions() -> list[Any]:
    return [
        layers.Conv2D(6, 3, activation="tanh", name="conv"),
        layers.DepthwiseConv2D(2, name="depthwise"),
        layers.Conv2DTranspose(4, 2, name="up"),
        layers.Conv2D(6, 2, dilation_rate=2, activation="tanh", name="dilated"),
        layers.Conv2D(24, 1, groups=2, name="groups"),
        layers.GlobalAveragePooling2D(),
    ]


def sequences() -> list[Any]:
    return [
        layers.Dense(6, "tanh", name="dense"),
        layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="e", name="einsum"),
        layers.Reshape((6, 6)),
        layers.Conv1D(5, 3, padding="causal", name="conv"),
        layers.GlobalMaxPooling1D(),
    ]


NETS = {
    "rows": Net(bag, (5,), ("net/table/embeddings[2:9]",), {"net/table/embeddings": (0, 5)}, words=True),
    "rows and columns": Net(
        bag,
        (5,),
        ("net/table/embeddings[[0, 2, 4, 6, 8, 10]]", "net/hidden/kernel[:, 1:7]", "net/hidden/bias[3:5]"),
        {"net/table/embeddings": (0, 6), "net/hidden/kernel": (1, 3), "net/hidden/bias": (0, 7)},
        words=True,
    ),
    "columns of a table": Net(
        bag, (5,), ("net/table/embeddings[:, 1:3]",), {"net/table/embeddings": (1, 2)}, words=True
    ),
    "rows, and elements of others": Net(
        recurrent,
        (5,),
        (
            "net/table/embeddings[0:6]",
            "net/table/embeddings[8, 1]",
            "net/lstm/lstm_cell/kernel[:, 4:8]",
            "net/lstm/lstm_cell/recurrent_kernel[1]",
        ),
        {
            "net/table/embeddings": (0, 6),
            "net/lstm/lstm_cell/kernel": (1, 12),
            "net/lstm/lstm_cell/recurrent_kernel": (0, 3),
        },
        words=True,
    ),
    "columns": Net(
        dense,
        (5,),
        ("net/hidden/kernel[:, 1:7]", "net/hidden/bias[3:5]", "net/wide/kernel[:, 0:24:2]", "net/scores/kernel[3]"),
        {
            "net/hidden/kernel": (1, 3),
            "net/hidden/bias": (0, 7),
            "net/wide/kernel": (1, 12),
            "net/scores/kernel": (0, 23),
        },
    ),
    "filters": Net(
        convolutions,
        (8, 8, 3),
        (
            "net/conv/kernel[..., 1:4]",
            "net/depthwise/kernel[:, :, 2:4]",
            "net/up/kernel[:, :, 0]",
            "net/dilated/kernel[..., 0]",
            "net/groups/kernel[..., 0:24:2]",
        ),
        {
            "net/conv/kernel": (3, 3),
            "net/depthwise/kernel": (2, 4),
            "net/up/kernel": (2, 3),
            "net/dilated/kernel": (3, 5),
            "net/groups/kernel": (3, 12),
        },
    ),
    "inputs and taps": Net(
        convolutions,
        (8, 8, 3),
        ("net/conv/kernel[:, :, 1]", "net/up/kernel[1]", "net/dilated/kernel[:, :, 1:3]"),
        {"net/conv/kernel": (2, 2), "net/up/kernel": (0, 1), "net/dilated/kernel": (2, 2)},
    ),
    "sequences": Net(
        sequences,
        (6, 5),
        (
            "net/dense/kernel[:, 2:5]",
            "net/einsum/kernel[:, :, 0]",
            "net/conv/kernel[..., 4]",
        ),
        {"net/dense/kernel": (1, 3), "net/einsum/kernel": (2, 2), "net/conv/kernel": (2, 4)},
    ),
}


def batches(net: Net) -> list[dict[str, Array]]:
    """A batch for each step; not every row of a table is in each."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(STEPS):
        x = rng.integers(0, 12, (4, *net.x)).astype(np.int32) if net.words else rng.normal(size=(4, *net.x))
        made.append({"x": x if net.words else x.astype(np.float32), "y": rng.integers(0, 3, 4)})
    return made
