"""Layers whose weights are quantised, alone and with a low-rank update (LoRA), which is what trains of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from tools.coverage_cases.case import Case, integers

__all__ = ["quantised_cases"]

L = keras.layers


def quantised_cases() -> list[Case]:
    """Each layer in 8 and 4 bits, with an update and without."""
    models: dict[str, Callable[[], Any]] = {}
    for mode in ("int8", "int4"):
        for name, make in _MODELS.items():
            models[f"{name} {mode}"] = partial(make, mode, None)
            if name != "ReversibleEmbedding":
                models[f"{name} {mode} LoRA"] = partial(make, mode, 2)
    models["Dense float8"] = partial(_dense, "float8", None)
    return [Case("quantised", name, make, inputs={"words": integers(7)}) for name, make in models.items()]


def _dense(mode: str, rank: int | None) -> Any:
    x = keras.Input((6,), name="x")
    return _quantised(x, L.Dense(6)(x), L.Dense(8, name="quantised"), mode, rank)


def _einsum_dense(mode: str, rank: int | None) -> Any:
    x = keras.Input((4, 6), name="x")
    layer = L.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de", name="quantised")
    return _quantised(x, L.Dense(6)(x), layer, mode, rank)


def _embedding(mode: str, rank: int | None) -> Any:
    words = keras.Input((6,), dtype="int32", name="words")
    return _quantised(words, words, L.Embedding(7, 8, name="quantised"), mode, rank)


def _reversible(mode: str, rank: int | None) -> Any:
    words = keras.Input((6,), dtype="int32", name="words")
    layer = L.ReversibleEmbedding(7, 4)
    model = keras.Model(words, layer(L.Dense(4)(layer(words)), reverse=True), name="model")
    layer.quantize(mode)
    return model


def _quantised(inputs: Any, before: Any, layer: Any, mode: str, rank: int | None) -> Any:
    model = keras.Model(inputs, L.Dense(3)(layer(before)), name="model")
    layer.quantize(mode)
    if rank is not None:
        layer.enable_lora(rank)
    return model


_MODELS = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Embedding": _embedding,
    "ReversibleEmbedding": _reversible,
}
