"""Tiny SavedModels, each with one thing that a rewrite has to get right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

__all__ = ["BUILDERS", "typed"]

ROWS = tf.TensorSpec([None, 2])


def _save(path: Path, function: Callable[..., Any], *inputs: Any, **variables: Any) -> Path:
    """Save a module with these attributes, whose endpoint `serve` is that function of these inputs."""
    module = tf.Module()
    for name, value in variables.items():
        setattr(module, name, value)
    module.serve = tf.function(function, input_signature=inputs)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
    tf.saved_model.save(module, str(path), signatures=module.serve.get_concrete_function(), options=options)
    return path


def _square(name: str, first: float) -> Any:
    return tf.Variable([[first, -2.0], [3.0, 4.0]], name=name)


def shared(path: Path) -> Path:
    """One traced function that is called with different variables: it has to be cloned."""
    a, b, c = _square("a", 1.0), _square("b", 5.0), _square("c", 9.0)
    product = tf.function(lambda x, w: x @ w)
    return _save(path, lambda x: product(x, a) + product(x, b) + product(x, c), ROWS, a=a, b=b, c=c)


def control_flow(path: Path) -> Path:
    """Reads inside If, Case and While."""
    a, b = _square("a", 1.0), _square("b", 5.0)

    def serve(x: Any) -> Any:
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ a, lambda: x @ b)
        y = tf.switch_case(tf.shape(x)[0] % 2, [lambda: y @ a, lambda: y @ b])
        return tf.while_loop(lambda k, _: k < 3, lambda k, z: (k + 1, tf.tanh(z @ b)), [tf.constant(0), y])[1]

    return _save(path, serve, ROWS, a=a, b=b)


def gathers(path: Path) -> Path:
    """Sparse reads: ResourceGather with and without batch axes, ResourceGatherNd, and GatherV2 behind a read."""
    rows = tf.Variable(tf.reshape(tf.range(12.0), [4, 3]) - 5.0, name="rows")
    batched = tf.Variable(tf.reshape(tf.range(12.0), [2, 6]) + 1.0, name="batched")

    def serve(i: Any) -> Any:
        # The shifted indices are there so that a mask gathered with the wrong ones still has the right shape.
        taken = [
            tf.gather(rows, i),
            tf.gather(rows, i + 1),
            tf.gather_nd(rows, i),
            tf.gather(tf.convert_to_tensor(rows), i),
            tf.raw_ops.ResourceGather(resource=batched.handle, indices=i, dtype=tf.float32, batch_dims=1),
        ]
        return tf.add_n([tf.reduce_sum(part) for part in taken])

    return _save(path, serve, tf.TensorSpec([2, 2], tf.int32), rows=rows, batched=batched)


def custom_gradient(path: Path) -> Path:
    """Custom gradients that capture what a variable yields: the object graph names tensors inside functions."""
    w = _square("w", 1.0)

    def product(x: Any, weights: Any) -> Any:
        return x @ weights, lambda dy: (dy @ tf.transpose(weights), tf.transpose(x) @ dy)

    custom = tf.custom_gradient(product)
    return _save(path, lambda x: custom(x, tf.convert_to_tensor(w)) + tf.nn.silu(x @ w), ROWS, w=w)


def table(path: Path) -> Path:
    """A lookup table, with functions of its own that create and initialise it."""
    w = tf.Variable([1.0, 2.0, 3.0], name="w")
    lookup = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1, 2], [0.5, 2.0]), 1.0)
    return _save(path, lambda key: w * lookup.lookup(key), tf.TensorSpec([], tf.int32), w=w, table=lookup)


def dataset(path: Path) -> Path:
    """A handle that disappears into a dataset's function."""
    w = tf.Variable(2.0, name="w")

    def serve(x: Any) -> Any:
        scaled = tf.data.Dataset.from_tensor_slices(x).map(lambda value: value * w)
        return scaled.reduce(0.0, lambda total, value: total + value)

    return _save(path, serve, tf.TensorSpec([None]), w=w)


def typed(path: Path, value: Any) -> Path:
    """One variable of any dtype, given back as it is."""
    w = tf.Variable(value, name="w")
    return _save(path, lambda: tf.identity(w), w=w)


def counter(path: Path) -> Path:
    """A function that writes the variable that it reads."""
    w = tf.Variable([1.0, 2.0], name="w")
    return _save(path, lambda x: w.assign_add(x) * 2.0, tf.TensorSpec([2]), w=w)


def updates(path: Path) -> Path:
    """A training step of its own: Adam's operation, a sparse momentum's, a delta, and a slot that is assigned to."""
    w, e, b = _square("w", 1.0), _square("e", 5.0), tf.Variable([1.0, 2.0], name="b")
    slots = {
        f"{v.name[:-2]}_{s}": tf.Variable(tf.ones_like(v), trainable=False, name=s)
        for v in (w, e, b)
        for s in ("m", "v")
    }

    def train(x: Any, i: Any) -> Any:
        loss = tf.reduce_sum((x + tf.gather(e, i)) @ w + b)
        handles = {name: slot.handle for name, slot in slots.items()}
        tf.raw_ops.ResourceApplyAdam(
            **{"var": w.handle, "m": handles["w_m"], "v": handles["w_v"], "grad": tf.transpose(x) @ x, "lr": 0.1},
            **{"beta1_power": 0.9, "beta2_power": 0.9, "beta1": 0.9, "beta2": 0.9, "epsilon": 1e-7},
        )
        tf.raw_ops.ResourceSparseApplyKerasMomentum(
            var=e.handle, accum=handles["e_m"], lr=0.1, grad=x, indices=i, momentum=0.9
        )
        slots["b_m"].assign(slots["b_m"] * 0.9 + x[0])
        b.assign_sub(slots["b_m"] * 0.1)
        slots["e_v"].scatter_sub(tf.IndexedSlices(x, i))
        return loss

    return _save(path, train, tf.TensorSpec([2, 2]), tf.TensorSpec([2], tf.int32), w=w, e=e, b=b, **slots)


def endpoints(path: Path) -> Path:
    """Endpoints that call one another and share functions: what is frozen in one must stay in the others."""
    module = tf.Module()
    module.a, module.b = a, b = _square("a", 1.0), _square("b", 5.0)
    product = tf.function(lambda x, w: x @ w)
    module.inner = tf.function(lambda x: product(x, a), input_signature=[ROWS])
    module.outer = tf.function(lambda x: product(module.inner(x), b), input_signature=[ROWS])
    tf.saved_model.save(module, str(path), signatures={"inner": module.inner, "outer": module.outer})
    return path


def recurrent(path: Path) -> Path:
    """A Keras 3 export: an embedding (ReadVariableOp and GatherV2), and an LSTM that reads in a While body."""
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Embedding(7, 3), keras.layers.LSTM(2), keras.layers.Dense(2)]
    model = keras.Sequential([keras.layers.Input([4], dtype="int32"), *layers])
    model.export(path, verbose=False)
    return path


BUILDERS: dict[str, Callable[[Path], Path]] = {
    builder.__name__: builder
    for builder in (
        shared,
        control_flow,
        gathers,
        custom_gradient,
        table,
        dataset,
        counter,
        updates,
        endpoints,
        recurrent,
    )
}
"""Model name -> what saves it at a path."""
