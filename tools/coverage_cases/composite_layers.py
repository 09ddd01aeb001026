"""Layers with several inputs, with states, or with whole numbers as inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tools.coverage_cases.case import Case, Draw, integers
from tools.coverage_cases.chains import Make, numbers, tokens

__all__ = ["composite_layer_cases"]

L = keras.layers


def composite_layer_cases() -> list[Case]:
    """One model for each."""
    return [
        Case("layers", name, make, inputs=_INPUTS.get(name, {}), tracks=name.partition(" ")[0])
        for name, make in _MODELS.items()
    ]


def _merge(make: Callable[[], Any]) -> Make:
    def model() -> Any:
        x = keras.Input((4, 5), name="x")
        return keras.Model(x, make()([L.Dense(6)(x), L.Dense(6)(x)]), name="model")

    return model


def _attend(make: Callable[[], Any], *, causal: bool = False, call: Callable[..., Any] | None = None) -> Make:
    def model() -> Any:
        x = keras.Input((4, 6), name="x")
        query, value = L.Dense(6, name="query")(x), L.Dense(6, name="value")(x)
        arguments = {"use_causal_mask": True} if causal else {}
        layer = make()
        return keras.Model(x, call(layer, query, value) if call else layer([query, value], **arguments), name="model")

    return model


def _attend_to_itself(x: Any) -> Any:
    return L.MultiHeadAttention(2, 3)(x, x)


def _reversible() -> Any:
    x = keras.Input((6,), dtype="int32", name="x")
    layer = L.ReversibleEmbedding(7, 4)
    return keras.Model(x, layer(L.Dense(4)(layer(x)), reverse=True), name="model")


def _with_states() -> Any:
    x = keras.Input((5, 4), name="x")
    _, *states = L.LSTM(3, return_state=True)(x)
    return keras.Model(x, L.LSTM(3)(x, initial_state=states), name="model")


def _stateful() -> Any:
    x = keras.Input(batch_shape=(4, 5, 3), name="x")
    return keras.Model(x, L.GRU(3, stateful=True)(L.Dense(3)(x)), name="model")


_MODELS: dict[str, Make] = {
    "Add": _merge(lambda: L.Add()),
    "Average": _merge(lambda: L.Average()),
    "Concatenate": _merge(lambda: L.Concatenate()),
    "Maximum": _merge(lambda: L.Maximum()),
    "Minimum": _merge(lambda: L.Minimum()),
    "Multiply": _merge(lambda: L.Multiply()),
    "Subtract": _merge(lambda: L.Subtract()),
    "Dot": _merge(lambda: L.Dot(axes=2)),
    "Dot normalised": _merge(lambda: L.Dot(axes=(1, 1), normalize=True)),
    "InputLayer": numbers(lambda: L.Dense(3)),
    "AdditiveAttention": _attend(lambda: L.AdditiveAttention()),
    "Attention": _attend(lambda: L.Attention(use_scale=True)),
    "Attention causal": _attend(lambda: L.Attention(dropout=0.2, seed=1), causal=True),
    "MultiHeadAttention": _attend(lambda: L.MultiHeadAttention(2, 3), call=lambda a, q, v: a(q, v)),
    "MultiHeadAttention causal": _attend(
        lambda: L.MultiHeadAttention(2, 3, dropout=0.2, seed=1), call=lambda a, q, v: a(q, v, use_causal_mask=True)
    ),
    "GroupQueryAttention": _attend(lambda: L.GroupQueryAttention(3, 4, 2), call=lambda a, q, v: a(q, v)),
    "Embedding": tokens(lambda: L.Embedding(7, 4)),
    "Embedding masked LSTM": tokens(lambda: L.Embedding(7, 4, mask_zero=True), lambda: L.LSTM(3)),
    "Embedding masked GRU": tokens(
        lambda: L.Embedding(7, 4, mask_zero=True), lambda: L.GRU(3, return_sequences=True, go_backwards=True)
    ),
    "Embedding masked Bidirectional": tokens(
        lambda: L.Embedding(7, 4, mask_zero=True), lambda: L.Bidirectional(L.LSTM(3, dropout=0.2, seed=1))
    ),
    "Embedding masked any length": tokens(
        lambda: L.Embedding(7, 4, mask_zero=True),
        lambda: L.Bidirectional(L.GRU(3, return_sequences=True)),
        lambda: L.LSTM(3),
        length=None,
    ),
    "Embedding masked Attention": tokens(lambda: L.Embedding(7, 4, mask_zero=True), lambda: _attend_to_itself),
    "ReversibleEmbedding": _reversible,
    "LSTM initial state": _with_states,
    "GRU stateful": _stateful,
    "CategoryEncoding": tokens(lambda: L.CategoryEncoding(7, output_mode="multi_hot"), lambda: L.Dense(3)),
    "CategoryEncoding one-hot": tokens(
        lambda: L.CategoryEncoding(7, output_mode="one_hot"), lambda: L.Dense(3), length=1
    ),
    "CategoryEncoding count": tokens(lambda: L.CategoryEncoding(7, output_mode="count"), lambda: L.Dense(3)),
    "Discretization": numbers(
        lambda: L.Discretization(bin_boundaries=[-0.5, 0.0, 1.0]), lambda: L.Embedding(4, 3), lambda: L.Flatten()
    ),
    "IntegerLookup": tokens(lambda: L.IntegerLookup(vocabulary=[3, 5, 6]), lambda: L.Embedding(4, 3)),
}


_TOKENS: Mapping[str, Draw] = {"x": integers(7)}
_INPUTS: dict[str, Mapping[str, Draw]] = {
    **{name: _TOKENS for name in _MODELS if name.startswith(("Embedding", "CategoryEncoding", "IntegerLookup"))},
    "ReversibleEmbedding": _TOKENS,
}
