"""What is trained: small models that together have every kind of state and of operation that a backend may lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

__all__ = ["CASES", "WebCase", "draw_batches"]

_CROSS_ENTROPY = "sparse_categorical_crossentropy:from_logits=true"
_TOKENS = 5000
Draw = Callable[[np.random.Generator], npt.NDArray[Any]]


@dataclass(frozen=True)
class WebCase:
    """A model with its training step.

    Attributes:
        name: How the command line calls it.
        title: What it is.
        make: Builds the Keras model.
        draw: How to draw one batch, by the names of its arrays.
        freeze: What is frozen, as on the command line.
        optimizer: As on the command line.
        loss: As on the command line.
        endpoint: What is trained: `train` draws dropout and updates statistics.
        coarse: Of mixed precision: the dtype that the step computes in.
    """

    name: str
    title: str
    make: Callable[[], Any]
    draw: Mapping[str, Draw]
    freeze: tuple[str, ...]
    optimizer: str
    loss: tuple[str, ...] = (_CROSS_ENTROPY,)
    endpoint: str = "serve"
    coarse: str | None = None


def draw_batches(case: WebCase, count: int) -> list[dict[str, npt.NDArray[Any]]]:
    """Batches with the same numbers each time."""
    random = np.random.default_rng(0)
    return [{name: draw(random) for name, draw in case.draw.items()} for _ in range(count)]


def _normal(*shape: int) -> Draw:
    return lambda random: random.normal(size=shape).astype(np.float32)


def _classes(count: int, *shape: int) -> Draw:
    return lambda random: random.integers(0, count, shape, dtype=np.int64)


def _mlp() -> Any:
    x = keras.Input((16,), name="x")
    h = layers.Dense(32, "relu", name="hidden")(layers.Dense(64, "relu", name="first")(x))
    return keras.Model(x, layers.Dense(10, name="scores")(h), name="mlp")


def _cnn() -> Any:
    x = keras.Input((12, 12, 3), name="image")
    h = layers.Conv2D(8, 3, padding="same", name="conv1")(x)
    h = layers.ReLU()(layers.BatchNormalization(name="norm")(h))
    h = layers.MaxPooling2D(2)(h)
    h = layers.Dropout(0.25)(layers.Conv2D(16, 3, activation="relu", name="conv2")(h))
    return keras.Model(x, layers.Dense(10, name="scores")(layers.Flatten()(h)), name="cnn")


def _lstm() -> Any:
    x = keras.Input((12, 8), name="x")
    return keras.Model(x, layers.Dense(4, name="scores")(layers.LSTM(24, name="lstm")(x)), name="lstm")


def _transformer() -> Any:
    x = keras.Input((16,), dtype="int32", name="tokens")
    h = layers.Embedding(_TOKENS, 64, name="table")(x)
    h = layers.LayerNormalization(name="norm1")(h + layers.MultiHeadAttention(4, 16, name="attention")(h, h))
    inner = layers.Dense(64, name="narrow")(layers.Dense(128, "gelu", name="wide")(h))
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization(name="norm2")(h + inner))
    return keras.Model(x, layers.Dense(5, name="scores")(h), name="transformer")


def _two_outputs() -> Any:
    x, z = keras.Input((8,), name="x"), keras.Input((4,), name="z")
    h = layers.Dense(24, "tanh", name="trunk")(layers.Concatenate()([x, z]))
    outputs = {"label": layers.Dense(3, name="label")(h), "value": layers.Dense(1, name="value")(h)}
    return keras.Model([x, z], outputs, name="two_outputs")


def _of_dtype(dtype: str) -> Callable[[], Any]:
    def make() -> Any:
        x = keras.Input((16,), name="x", dtype="float16" if dtype == "float16" else "float32")
        h = layers.Dense(32, "relu", name="hidden", dtype=dtype)(x)
        return keras.Model(x, layers.Dense(4, name="scores", dtype=dtype)(h), name=dtype)

    return make


_ALL = (
    WebCase(
        "mlp",
        "MLP 16-64-32-10, Adam; small weights frozen, and a bias as a whole",
        _mlp,
        {"x": _normal(32, 16), "y": _classes(10, 32)},
        ("**/first/kernel where abs(w) < 0.1", "**/hidden/kernel[3:7, ::2]", "**/scores/bias"),
        "adam:learning_rate=3e-3",
    ),
    WebCase(
        "cnn",
        "CNN as `fit` trains it: max pooling, batch normalization, dropout; SGD with momentum; filters frozen",
        _cnn,
        {"image": _normal(16, 12, 12, 3), "y": _classes(10, 16)},
        ("**/conv1/kernel[:, :, :, 0:3]", "**/conv2/kernel where abs(w) < 0.03"),
        "sgd:learning_rate=0.02,momentum=0.9",
        endpoint="train",
    ),
    WebCase(
        "lstm",
        "LSTM of 24 units, 12 steps, AdamW; part of the recurrent kernel frozen",
        _lstm,
        {"x": _normal(16, 12, 8), "y": _classes(4, 16)},
        ("**/recurrent_kernel[0:8, ::3]",),
        "adamw:learning_rate=3e-3,weight_decay=0.01",
    ),
    WebCase(
        "transformer",
        f"transformer block, 4 heads, 16 of {_TOKENS} tokens, SGD with momentum; elements of the table frozen",
        _transformer,
        {"tokens": lambda random: random.integers(0, _TOKENS, (8, 16), dtype=np.int32), "y": _classes(5, 8)},
        ("**/table/embeddings[0:2500, 0:8]", "**/wide/kernel[:, ::2]"),
        "sgd:learning_rate=0.05,momentum=0.9",
    ),
    WebCase(
        "two_outputs",
        "two inputs, two outputs with a loss each, RMSprop; a whole kernel frozen",
        _two_outputs,
        {"x": _normal(16, 8), "z": _normal(16, 4), "y.label": _classes(3, 16), "y.value": _normal(16, 1)},
        ("**/value/kernel", "**/trunk/kernel[2:5, :]"),
        "rmsprop:learning_rate=1e-3",
        (f"label={_CROSS_ENTROPY}", "value=mse:weight=0.3"),
    ),
    WebCase(
        "float16",
        "MLP 16-32-4 with weights in float16, SGD",
        _of_dtype("float16"),
        {"x": lambda random: random.normal(size=(16, 16)).astype(np.float16), "y": _classes(4, 16)},
        ("**/hidden/kernel where abs(w) < 0.05",),
        "sgd:learning_rate=0.05",
    ),
    *(
        WebCase(
            dtype,
            f"MLP 16-32-4 in {dtype}, SGD with momentum",
            _of_dtype(dtype),
            # Larger batches and smaller steps than above: the noise of a coarse dtype must not hide what is compared.
            {"x": _normal(64, 16), "y": _classes(4, 64)},
            ("**/hidden/kernel where abs(w) < 0.05",),
            "sgd:learning_rate=0.01,momentum=0.9",
            coarse=dtype.removeprefix("mixed_"),
        )
        for dtype in ("mixed_float16", "mixed_bfloat16", "bfloat16")
    ),
)

CASES: Mapping[str, WebCase] = {case.name: case for case in _ALL}
