"""Recurrent layers, attention, tables and encodings again, with options that make other operations of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras

from tools.coverage_cases.case import Case, Draw, after_dense, integers
from tools.coverage_cases.chains import Make, numbers, tokens

__all__ = ["sequence_option_cases"]

L = keras.layers
SIGNAL = (9, 4)


def _both_ways(merge_mode: str) -> Any:
    return L.Bidirectional(L.GRU(3), merge_mode=merge_mode)


_RECURRENT: Mapping[str, tuple[tuple[int, ...], Make]] = {
    "SimpleRNN dropout": (SIGNAL, lambda: L.SimpleRNN(3, dropout=0.3, recurrent_dropout=0.2, seed=1)),
    "SimpleRNN masked": (SIGNAL, lambda: _masked(L.SimpleRNN(3, return_sequences=True))),
    "LSTM masked": (SIGNAL, lambda: _masked(L.LSTM(3))),
    "LSTM of other activations": (
        SIGNAL,
        lambda: L.LSTM(3, "relu", "hard_sigmoid", use_bias=False, unit_forget_bias=False),
    ),
    "LSTM unrolled masked": (SIGNAL, lambda: _masked(L.LSTM(3, unroll=True, return_sequences=True))),
    "GRU unrolled": (SIGNAL, lambda: L.GRU(3, unroll=True, go_backwards=True)),
    "GRU masked": (SIGNAL, lambda: _masked(L.GRU(3, reset_after=False))),
    "RNN zero output": (SIGNAL, lambda: _masked(L.RNN(L.GRUCell(3), return_sequences=True, zero_output_for_mask=True))),
    "RNN of dropout": (SIGNAL, lambda: L.RNN(L.LSTMCell(3, dropout=0.3, recurrent_dropout=0.2, seed=1))),
    "StackedRNNCells sequences": (
        SIGNAL,
        lambda: L.RNN(L.StackedRNNCells([L.LSTMCell(3), L.SimpleRNNCell(2)]), return_sequences=True, unroll=True),
    ),
    **{f"Bidirectional {mode}": (SIGNAL, partial(_both_ways, mode)) for mode in ("sum", "mul", "ave")},
    "Bidirectional apart": (SIGNAL, lambda: _apart(L.Bidirectional(L.LSTM(3), merge_mode=None))),
    "Bidirectional of two": (
        SIGNAL,
        lambda: L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(2, go_backwards=True)),
    ),
    "TimeDistributed masked": (SIGNAL, lambda: _masked(L.TimeDistributed(L.Dense(3)))),
    "ConvLSTM1D strided": ((3, 6, 2), lambda: L.ConvLSTM1D(2, 3, strides=2, go_backwards=True)),
    "ConvLSTM2D dropout": ((3, 5, 4, 2), lambda: L.ConvLSTM2D(2, 2, dropout=0.3, recurrent_dropout=0.2, seed=1)),
    "ConvLSTM2D dilated": ((3, 6, 6, 2), lambda: L.ConvLSTM2D(2, 2, dilation_rate=2)),
    "ConvLSTM2D channels first": ((3, 2, 5, 4), lambda: L.ConvLSTM2D(2, 2, data_format="channels_first")),
}


def _masked(layer: Any) -> Any:
    """The layer on sequences whose last steps are masked."""

    def apply(h: Any) -> Any:
        steps = keras.ops.cumsum(keras.ops.ones_like(h[:, :, 0]), axis=1)
        return layer(h, mask=steps < 5 + 3 * keras.ops.sign(h[:, :1, 0]))

    return apply


def _apart(layer: Any) -> Any:
    return lambda h: L.Concatenate()(list(layer(h)))


def _attend(make: Callable[[], Any], call: Callable[..., Any], shape: tuple[int, ...] = (4, 6)) -> Make:
    def model() -> Any:
        x = keras.Input(shape, name="x")
        query, value = L.Dense(6, name="query")(x), L.Dense(6, name="value")(x)
        return keras.Model(x, call(make(), query, value), name="model")

    return model


def _mask(h: Any) -> Any:
    """Which steps count: the first one, and about half of the others."""
    return keras.ops.logical_or(h[:, :, 0] > 0, keras.ops.cumsum(keras.ops.ones_like(h[:, :, 0]), axis=1) < 2)


_ATTENTION: dict[str, Make] = {
    "Attention of sums": _attend(lambda: L.Attention(score_mode="concat", use_scale=True), lambda a, q, v: a([q, v])),
    "Attention masked": _attend(lambda: L.Attention(), lambda a, q, v: a([q, v], mask=[_mask(q), _mask(v)])),
    "AdditiveAttention masked": _attend(
        lambda: L.AdditiveAttention(use_scale=False, dropout=0.2),
        lambda a, q, v: a([q, v], mask=[None, _mask(v)], use_causal_mask=True),
    ),
    "MultiHeadAttention of axes": _attend(
        lambda: L.MultiHeadAttention(2, 3, attention_axes=(1, 2)), lambda a, q, v: a(q, v), (3, 2, 6)
    ),
    "MultiHeadAttention of an axis": _attend(
        lambda: L.MultiHeadAttention(2, 3, attention_axes=(2,)), lambda a, q, v: a(q, v), (3, 4, 6)
    ),
    "MultiHeadAttention of other sizes": _attend(
        lambda: L.MultiHeadAttention(2, 3, value_dim=4, output_shape=5, use_bias=False), lambda a, q, v: a(q, v, q)
    ),
    "MultiHeadAttention masked": _attend(
        lambda: L.MultiHeadAttention(2, 3),
        lambda a, q, v: a(q, v, query_mask=_mask(q), value_mask=_mask(v), use_causal_mask=True),
    ),
    "MultiHeadAttention of a mask": _attend(
        lambda: L.MultiHeadAttention(2, 3), lambda a, q, v: a(q, v, attention_mask=_mask(v)[:, None, :])
    ),
    "MultiHeadAttention scores": _attend(
        lambda: L.MultiHeadAttention(2, 3),
        lambda a, q, v: L.Concatenate()([L.Flatten()(part) for part in a(q, v, return_attention_scores=True)]),
    ),
    "MultiHeadAttention windowed": _attend(
        lambda: L.MultiHeadAttention(2, 3, sliding_window=2), lambda a, q, v: a(q, v), (7, 6)
    ),
    "MultiHeadAttention gated": _attend(lambda: L.MultiHeadAttention(2, 3, use_gate=True), lambda a, q, v: a(q, v)),
    "MultiHeadAttention without flash": _attend(
        lambda: L.MultiHeadAttention(2, 3, flash_attention=False), lambda a, q, v: a(q, v)
    ),
    "GroupQueryAttention causal": _attend(
        lambda: L.GroupQueryAttention(3, 4, 2, dropout=0.2, use_bias=False, seed=1),
        lambda a, q, v: a(q, v, use_causal_mask=True),
    ),
    "GroupQueryAttention windowed": _attend(
        lambda: L.GroupQueryAttention(3, 4, 2, sliding_window=2, use_gate=True), lambda a, q, v: a(q, v), (7, 6)
    ),
}


def _reversible() -> Any:
    x = keras.Input((6,), dtype="int32", name="x")
    layer = L.ReversibleEmbedding(7, 4, tie_weights=False, logit_soft_cap=2.0)
    return keras.Model(x, layer(L.Dense(4)(layer(x)), reverse=True), name="model")


def _weighted_counts() -> Any:
    x = keras.Input((6,), dtype="int32", name="x")
    weights = keras.Input((6,), name="weights")
    counts = L.CategoryEncoding(7, output_mode="count")(x, count_weights=weights)
    return keras.Model([x, weights], L.Dense(3)(counts), name="model")


def _stateful_sequences() -> Any:
    x = keras.Input(batch_shape=(4, 5, 3), name="x")
    h = L.LSTM(3, stateful=True, return_sequences=True)(L.Dense(3)(x))
    return keras.Model(x, L.SimpleRNN(2, stateful=True)(h), name="model")


def _bidirectional_states() -> Any:
    x = keras.Input((5, 4), name="x")
    h, *states = L.Bidirectional(L.LSTM(3, return_sequences=True, return_state=True))(x)
    return keras.Model(x, L.Bidirectional(L.LSTM(3))(h, initial_state=states), name="model")


_VOCABULARY = [3, 5, 6]
_BOUNDS = [-0.5, 0.0, 1.0]
_MODELS: dict[str, Make] = {
    "LSTM stateful": _stateful_sequences,
    "Bidirectional initial state": _bidirectional_states,
    "Embedding LoRA": tokens(lambda: L.Embedding(7, 4, lora_rank=2)),
    "Embedding masked loss": tokens(lambda: L.Embedding(7, 4, mask_zero=True), lambda: L.Dense(3)),
    "Embedding masked mean": tokens(lambda: L.Embedding(7, 4, mask_zero=True), lambda: L.GlobalAveragePooling1D()),
    "ReversibleEmbedding of two tables": _reversible,
    "CategoryEncoding weighted": _weighted_counts,
    **{
        f"Discretization {mode}": numbers(
            partial(L.Discretization, bin_boundaries=_BOUNDS, output_mode=mode), lambda: L.Dense(3)
        )
        for mode in ("one_hot", "multi_hot", "count")
    },
    **{
        f"IntegerLookup {mode}": tokens(
            partial(L.IntegerLookup, vocabulary=_VOCABULARY, output_mode=mode), lambda: L.Dense(3)
        )
        for mode in ("multi_hot", "count")
    },
    "IntegerLookup one_hot": tokens(
        lambda: L.IntegerLookup(vocabulary=_VOCABULARY, output_mode="one_hot"), lambda: L.Dense(3), length=1
    ),
    "IntegerLookup tf_idf": tokens(
        lambda: L.IntegerLookup(vocabulary=_VOCABULARY, idf_weights=[0.5, 0.3, 0.7], output_mode="tf_idf"),
        lambda: L.Dense(3),
    ),
    "IntegerLookup masked": tokens(
        lambda: L.IntegerLookup(vocabulary=_VOCABULARY, mask_token=0, num_oov_indices=2), lambda: L.Embedding(6, 3)
    ),
    "IntegerLookup inverted": tokens(
        lambda: L.IntegerLookup(vocabulary=_VOCABULARY, invert=True), lambda: L.Rescaling(0.1), lambda: L.Dense(3)
    ),
}


def sequence_option_cases() -> list[Case]:
    """One model for each."""
    models = {name: after_dense(shape, partial(_applied, make)) for name, (shape, make) in _RECURRENT.items()}
    models |= _ATTENTION | _MODELS
    return [
        Case("layers", name, make, inputs=_inputs(name), tracks=name.partition(" ")[0]) for name, make in models.items()
    ]


def _applied(make: Make, h: Any) -> Any:
    return make()(h)


def _inputs(name: str) -> Mapping[str, Draw]:
    takes_tokens = ("Embedding", "CategoryEncoding", "IntegerLookup", "ReversibleEmbedding")
    high = 4 if "inverted" in name else 7
    return {"x": integers(high)} if name.startswith(takes_tokens) else {}
