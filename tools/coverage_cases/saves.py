"""SavedModels of others: tf_keras, with its training mode, and modules of TensorFlow with loops of their own."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tools.coverage_cases.case import Case, integers
from tools.coverage_cases.numeric_calls import NUMERIC_CALLS

__all__ = ["keras_2_cases", "module_cases"]


# -- Keras 2


def keras_2_cases() -> list[Case]:
    """Models of tf_keras, where it is installed: its saves hold the training mode, noise without a seed in it."""
    if importlib.util.find_spec("tf_keras") is None:
        return []
    words = {"tokens": integers(7)}
    makers: dict[str, Callable[[Any], Any]] = {
        "dense": _dense, "images": _images, "LSTM": _lstm, "GRU": _gru, "attention": _attention
    }  # fmt: skip
    return [
        Case("keras 2", name, _made(make), inputs=words, save=lambda model, path: model.save(path, save_format="tf"))
        for name, make in makers.items()
    ]


def _made(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        module = importlib.import_module("tf_keras")
        module.utils.set_random_seed(0)
        return make(module)

    return build


def _dense(k: Any) -> Any:
    x = k.Input((5,), name="x")
    h = k.layers.Dense(8, activation="tanh", kernel_regularizer="l2")(x)
    h = k.layers.Dropout(0.3)(k.layers.BatchNormalization()(h))
    h = k.layers.AlphaDropout(0.1)(k.layers.GaussianNoise(0.1)(h))
    return k.Model(x, k.layers.Dense(3)(h))


def _images(k: Any) -> Any:
    x = k.Input((9, 9, 2), name="x")
    h = k.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    h = k.layers.SpatialDropout2D(0.2)(k.layers.MaxPooling2D()(h))
    h = k.layers.SeparableConv2D(3, 2)(h)
    return k.Model(x, k.layers.Dense(3)(k.layers.GlobalAveragePooling2D()(h)))


def _recurrent(k: Any, layer: Any) -> Any:
    tokens = k.Input((6,), dtype="int32", name="tokens")
    h = k.layers.Embedding(7, 4, mask_zero=True)(tokens)
    return k.Model(tokens, k.layers.Dense(2)(layer(h)))


def _lstm(k: Any) -> Any:
    return _recurrent(k, k.layers.Bidirectional(k.layers.LSTM(3, dropout=0.2, recurrent_dropout=0.2)))


def _gru(k: Any) -> Any:
    return _recurrent(k, k.layers.GRU(3, dropout=0.2, go_backwards=True))


def _attention(k: Any) -> Any:
    x = k.Input((6, 4), name="x")
    h = k.layers.LayerNormalization()(x + k.layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x))
    return k.Model(x, k.layers.Dense(2, activation="gelu")(h))


# -- modules

Call = Callable[["_Module", Any], Any]


class _Module(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A function of one input, with two parameters."""

    def __init__(self, call: Call, dtype: Any = tf.float32) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.kernel = tf.Variable(rng.normal(size=(4, 4)) / 2, dtype=tf.float32, name="kernel")
        self.bias = tf.Variable(rng.normal(size=(7, 4)) / 2, dtype=tf.float32, name="bias")
        keys = tf.constant([3, 1, 900, 17], tf.int64)
        pairs = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([1, 2, 3, 4], tf.int64))
        self.table = tf.lookup.StaticHashTable(pairs, 0)
        self.generator = tf.random.Generator.from_seed(3)
        spec = tf.TensorSpec((None, 4), dtype, name="x")
        self.train = tf.function(lambda x: call(self, x), input_signature=[spec], autograph=False)


def _until_small(m: Any, x: Any) -> Any:
    """A loop that data end."""
    return tf.while_loop(
        lambda i, h: (i < 9) & (tf.reduce_sum(tf.abs(h)) > 2.0),
        lambda i, h: (i + 1, tf.tanh(h @ m.kernel) + 0.1 * m.bias[0]),
        [0, x],
    )[1]


def _until_small_within(m: Any, x: Any) -> Any:
    """A loop that data end, in another one."""

    def inner(h: Any) -> Any:
        until_small = (
            lambda j, g: (j < 9) & (tf.reduce_sum(tf.abs(g)) > 2.0),
            lambda j, g: (j + 1, tf.tanh(g @ m.kernel)),
        )
        return tf.while_loop(*until_small, [0, h])[1]

    def going_on(i: Any, h: Any) -> Any:
        return (i < 4) & (tf.reduce_sum(tf.abs(h)) > 1.0)

    return tf.while_loop(going_on, lambda i, h: (i + 1, inner(h) + 0.3 * x), [0, x])[1]


def _counted(m: Any, x: Any) -> Any:
    """A loop of known length."""
    return tf.while_loop(lambda i, h: i < 4, lambda i, h: (i + 1, tf.tanh(h @ m.kernel) + m.bias[i]), [0, x])[1]


def _scan(m: Any, x: Any) -> Any:
    """A scan over the rows of a parameter, with all that it passes."""
    states = tf.scan(lambda h, row: tf.tanh(h @ m.kernel + row), m.bias, initializer=x)
    return tf.reduce_mean(states, 0)


def _map(m: Any, x: Any) -> Any:
    """map_fn over the rows of a parameter."""
    return tf.reduce_sum(tf.map_fn(lambda row: tf.sin(x @ m.kernel + row), m.bias), 0)


def _cond(m: Any, x: Any) -> Any:
    """Branches that data choose."""
    h = x @ m.kernel
    return tf.cond(tf.reduce_mean(h) > 0.0, lambda: tf.tanh(h) + m.bias[0], lambda: h * m.bias[1])


def _switch(m: Any, x: Any) -> Any:
    """A switch by a number that data give."""
    h = x @ m.kernel
    number = tf.cast(tf.reduce_sum(tf.cast(h > 0.0, tf.int32)) % 3, tf.int32)
    return tf.switch_case(number, [lambda: h + m.bias[0], lambda: h * m.bias[1], lambda: tf.sin(h)])


def _table(m: Any, x: Any) -> Any:
    """Rows of a parameter by a lookup table."""
    return tf.gather(m.bias, m.table.lookup(tf.cast(x, tf.int64))) @ m.kernel


def _generator(m: Any, x: Any) -> Any:
    """Noise of a tf.random.Generator."""
    return (x * m.generator.uniform(tf.shape(x)) + m.generator.normal([4])) @ m.kernel


def _noise(m: Any, x: Any) -> Any:
    """Noise without a seed."""
    return tf.nn.dropout(x + tf.random.normal(tf.shape(x), stddev=0.1), 0.3) @ m.kernel


def _dynamic_partition(m: Any, x: Any) -> Any:
    """Rows that data pick: of a shape that only run time knows."""
    return tf.reduce_sum(tf.boolean_mask(x @ m.kernel, x[:, 0] > 0.0), 0, keepdims=True) + 0.0 * x


def _bags(m: Any, x: Any) -> Any:
    """Means of as many rows of a parameter as there are numbers that are not 0."""
    bags = tf.nn.safe_embedding_lookup_sparse(m.bias, tf.sparse.from_dense(x), combiner="mean")
    return tf.tanh(bags) @ m.kernel


def _different(m: Any, x: Any) -> Any:
    """Rows of a parameter that are computed once each."""
    numbers, places = tf.unique(tf.reshape(x, [-1]))
    return tf.reduce_mean(tf.reshape(tf.gather(tf.gather(m.bias, numbers) @ m.kernel, places), [-1, 4, 4]), 1)


def _ragged(m: Any, x: Any) -> Any:
    """Rows of different lengths, and padded again."""
    rows = tf.RaggedTensor.from_tensor(tf.cast(x, tf.float32), padding=0.0)
    changed = rows.with_values(tf.tanh(rows.values * m.bias[0, 0]))
    return changed.to_tensor(0.0, shape=[None, 4]) @ m.kernel


def _likelihood(m: Any, x: Any) -> Any:
    """The logarithm of the gamma function, as in a likelihood of counts."""
    return tf.math.lgamma(tf.nn.softplus(x @ m.kernel) + 0.5)


def _running(m: Any, x: Any) -> Any:
    """Running sums of exponentials."""
    return tf.math.cumulative_logsumexp(x @ m.kernel, axis=1)


def _normalised(m: Any, x: Any) -> Any:
    """Local response normalisation."""
    h = tf.reshape(x @ m.kernel, [-1, 1, 1, 4])
    return tf.nn.local_response_normalization(h, depth_radius=1)[:, 0, 0]


def _crops(m: Any, x: Any) -> Any:
    """A box cut out of each image, which a parameter moves."""
    h = tf.reshape(x @ m.kernel, [-1, 2, 2, 1])
    count = tf.shape(x)[0]
    boxes = tf.tile(tf.sigmoid(m.bias[:1]), [count, 1])
    return tf.reshape(tf.image.crop_and_resize(h, boxes, tf.range(count), [2, 2]), [-1, 4])


def _unpooled(m: Any, x: Any) -> Any:
    """The largest of each image, put back where it was."""
    h = tf.reshape(x @ m.kernel, [-1, 2, 2, 1])
    pooled = tf.nn.max_pool_with_argmax(h, 2, 2, "VALID", include_batch_in_index=True)
    places = tf.reshape(pooled.argmax, [-1, 1])
    size = tf.size(x, tf.int64)
    return tf.reshape(tf.scatter_nd(places, tf.reshape(pooled.output, [-1]), [size]), [-1, 4])


def _classes(m: Any, x: Any) -> Any:
    """Rows of a parameter by classes that are drawn without a seed."""
    drawn = tf.random.categorical(x @ m.kernel, 2)
    return tf.reduce_sum(tf.gather(m.bias, drawn), 1) @ m.kernel


_CALLS: dict[str, Call] = {
    "loop that data end": _until_small,
    "loop that data end in another": _until_small_within,
    "loop of known length": _counted,
    "tf.scan": _scan,
    "tf.map_fn": _map,
    "tf.cond": _cond,
    "tf.switch_case": _switch,
    "lookup table": _table,
    "tf.random.Generator": _generator,
    "noise without a seed": _noise,
    "tf.boolean_mask": _dynamic_partition,
    "bags of embeddings": _bags,
    "tf.unique": _different,
    "tf.RaggedTensor": _ragged,
    "tf.math.lgamma": _likelihood,
    "tf.math.cumulative_logsumexp": _running,
    "local response normalisation": _normalised,
    "tf.image.crop_and_resize": _crops,
    "tf.nn.max_pool_with_argmax": _unpooled,
    "tf.random.categorical": _classes,
    **NUMERIC_CALLS,
}


_HIGH: dict[Call, int] = {_table: 20, _bags: 7, _different: 7, _ragged: 3}
"""Of which calls the inputs are whole numbers, below which one."""


def module_cases() -> list[Case]:
    """Modules whose endpoint `train` is a function of their own."""
    cases = []
    for name, call in _CALLS.items():
        numbers = {"x": integers(_HIGH[call])} if call in _HIGH else {}
        dtype = tf.int32 if call in _HIGH else tf.float32
        cases.append(Case("modules", name, _module(call, dtype), inputs=numbers, save=_save))
    return cases


def _module(call: Call, dtype: Any) -> Callable[[], Any]:
    return lambda: _Module(call, dtype)


def _save(module: Any, path: Path) -> None:
    tf.saved_model.save(module, str(path))
