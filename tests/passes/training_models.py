"""Modules that carry a training step of their own, traced with TensorFlow's and Keras' optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

__all__ = ["BATCH", "OPTIMIZERS", "RAW", "Trained", "save", "steps"]

X = tf.TensorSpec([None, 3], tf.float32, name="x")
I = tf.TensorSpec([None], tf.int32, name="i")  # noqa: E741
Y = tf.TensorSpec([None, 2], tf.float32, name="y")
VARIABLES = ("w", "b", "e")
_NUMBERS = np.random.default_rng(6)
BATCH: dict[str, Any] = {
    "x": tf.constant(_NUMBERS.normal(size=(6, 3)), tf.float32),
    "i": tf.constant([0, 1, 2, 2, 4, 1]),
    "y": tf.constant(_NUMBERS.normal(size=(6, 2)), tf.float32),
}


class Trained(tf.Module):
    """A linear layer behind an embedding, with a step that trains them.

    Args:
        minimise: Takes the gradients and the variables, and updates these; it may be asked to make its slots first.
        tracked: What belongs to it: an optimizer, or its slots.
    """

    def __init__(self, minimise: Callable[[Sequence[Any], Sequence[Any]], object], **tracked: Any) -> None:
        super().__init__()
        make = np.random.default_rng(5)
        self.w = tf.Variable(make.normal(size=(3, 2)).astype(np.float32), name="w")
        self.b = tf.Variable(make.normal(size=(2,)).astype(np.float32), name="b")
        self.e = tf.Variable(make.normal(size=(5, 3)).astype(np.float32), name="e")
        self._minimise = minimise
        for name, value in tracked.items():
            setattr(self, name, value)

    @property
    def weights(self) -> list[Any]:
        return [self.w, self.b, self.e]

    @tf.function(input_signature=[X, I])
    def predict(self, x: Any, i: Any) -> Any:
        return {"output": tf.matmul(x + tf.gather(self.e, i), self.w) + self.b}

    @tf.function(input_signature=[X, I, Y])
    def train(self, x: Any, i: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.predict(x, i)["output"] - y) ** 2)
        self._minimise(tape.gradient(loss, self.weights), self.weights)
        return {"loss": loss}


def _tf_keras(optimizer: Any) -> Trained:
    def minimise(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    module = Trained(minimise, optimizer=optimizer)
    if hasattr(optimizer, "build"):
        optimizer.build(module.weights)
    return module


def _keras_3(optimizer: Any) -> Trained:
    module = Trained(lambda gradients, variables: optimizer.apply(gradients, variables), optimizer=optimizer)
    optimizer.build(module.weights)
    return module


def _clipped(clip: Callable[[Sequence[Any]], Sequence[Any]]) -> Trained:
    """Momentum with gradients that are clipped before."""

    def minimise(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        for k, (gradient, variable) in enumerate(zip(clip(gradients), variables, strict=True)):
            m = module.m[k]
            m.assign(m * 0.9 + tf.convert_to_tensor(gradient))
            if isinstance(gradient, tf.IndexedSlices):
                variable.scatter_sub(tf.IndexedSlices(gradient.values * 0.1, gradient.indices))
            variable.assign_sub(0.1 * m)

    module = Trained(minimise)
    _slots(module, "m")
    return module


def _keras_3_variables(optimizer: Any, *, dense: bool = False) -> Trained:
    """The same of Keras' own variables, perhaps with gradients that are tensors: some optimizers know no others."""

    def minimise(gradients: Sequence[Any], _: Sequence[Any]) -> None:
        optimizer.apply([tf.convert_to_tensor(g) for g in gradients] if dense else list(gradients), held)

    module = Trained(minimise, optimizer=optimizer)
    held = [keras.Variable(getattr(module, name), name=name) for name in VARIABLES]
    for name, variable in zip(VARIABLES, held, strict=True):
        setattr(module, name, variable)
    optimizer.build(held)
    return module


def _trust_ratio() -> Trained:
    """LAMB as it was first written down: weight decay, by `decays`, is part of the update whose norm is taken."""

    def minimise(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        for k, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
            m, v, decay = module.m[k], module.v[k], module.decays[k]
            gradient = tf.convert_to_tensor(gradient)
            m.assign(m * 0.9 + gradient * 0.1)
            v.assign(v * 0.99 + gradient * gradient * 0.01)
            update = m / (tf.sqrt(v) + 1e-6) + decay * variable
            weight_norm, update_norm = tf.norm(variable), tf.norm(update)
            ratio = tf.where(weight_norm > 0, tf.where(update_norm > 0, weight_norm / update_norm, 1.0), 1.0)
            variable.assign_sub(0.1 * ratio * update)

    module = Trained(minimise, decays=[0.01] * len(VARIABLES))
    _slots(module, "m", "v")
    return module


def _in_functions() -> Trained:
    """A function within the step clips by a norm that it is given, updates with a slot, and gives the new one out."""

    @tf.function(autograph=False)
    def descend(m: Any, variable: Any, gradient: Any, norm: Any) -> Any:
        clipped = gradient * tf.minimum(1.0, 0.1 / norm)
        again = clipped * tf.minimum(1.0, 0.05 / tf.norm(clipped))
        kept = m * 0.9 + again
        variable.assign_sub(0.1 * kept)
        return kept

    def minimise(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        norm = tf.linalg.global_norm(dense)
        for slot, variable, gradient in zip(module.m, variables, dense, strict=True):
            slot.assign(descend(slot.read_value(), variable, gradient, norm))

    module = Trained(minimise)
    _slots(module, "m")
    return module


def _accumulating(optimizer: Any) -> Trained:
    """A module that was trained so often that its next two steps end with what is accumulated used, and begin again."""
    module = _keras_3(optimizer)
    module.train(**BATCH)
    return module


def _slots(module: Trained, *names: str) -> None:
    """Slots of the module's weights, as plain variables of it."""
    for name in names:
        slots = [tf.Variable(tf.ones_like(w), name=f"{w.name[:-2]}/{name}", trainable=False) for w in module.weights]
        setattr(module, name, slots)


def _raw(apply: Callable[..., None], sparse: Callable[..., None] | None, *names: str) -> Callable[[], Trained]:
    """A module whose step uses TensorFlow's own optimizer operations."""

    def make() -> Trained:
        def minimise(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
            for k, (gradient, variable) in enumerate(zip(gradients, variables, strict=True)):
                handles = [getattr(module, name)[k].handle for name in names]
                if isinstance(gradient, tf.IndexedSlices) and sparse is not None:
                    sparse(variable.handle, *handles, grad=gradient.values, indices=gradient.indices)
                else:
                    apply(variable.handle, *handles, grad=tf.convert_to_tensor(gradient))

        module = Trained(minimise)
        _slots(module, *names)
        return module

    return make


ops = tf.raw_ops


def _momentum(var: Any, accum: Any, grad: Any) -> None:
    ops.ResourceApplyMomentum(var=var, accum=accum, lr=0.1, grad=grad, momentum=0.9)


def _keras_momentum(var: Any, accum: Any, grad: Any) -> None:
    ops.ResourceApplyKerasMomentum(var=var, accum=accum, lr=0.1, grad=grad, momentum=0.9, use_nesterov=True)


def _sparse_keras_momentum(var: Any, accum: Any, grad: Any, indices: Any) -> None:
    ops.ResourceSparseApplyKerasMomentum(
        var=var, accum=accum, lr=0.1, grad=grad, indices=indices, momentum=0.9, use_nesterov=True
    )


def _adam(var: Any, m: Any, v: Any, grad: Any) -> None:
    ops.ResourceApplyAdam(
        var=var, m=m, v=v, beta1_power=0.9, beta2_power=0.99, lr=0.1, beta1=0.9, beta2=0.99, epsilon=1e-7, grad=grad
    )


def _gradient_descent(var: Any, grad: Any) -> None:
    ops.ResourceApplyGradientDescent(var=var, alpha=0.1, delta=grad)


def _ftrl(var: Any, accum: Any, linear: Any, grad: Any) -> None:
    ops.ResourceApplyFtrl(var=var, accum=accum, linear=linear, grad=grad, lr=0.1, l1=0.0, l2=0.0, lr_power=-0.5)


def _sparse_rms(var: Any, ms: Any, mom: Any, grad: Any, indices: Any) -> None:
    ops.ResourceSparseApplyRMSProp(
        var=var, ms=ms, mom=mom, lr=0.1, rho=0.9, momentum=0.5, epsilon=1e-7, grad=grad, indices=indices
    )


def _rms(var: Any, ms: Any, mom: Any, grad: Any) -> None:
    ops.ResourceApplyRMSProp(var=var, ms=ms, mom=mom, lr=0.1, rho=0.9, momentum=0.5, epsilon=1e-7, grad=grad)


RAW: dict[str, Callable[[], Trained]] = {
    "gradient descent": _raw(_gradient_descent, None),
    "momentum": _raw(_momentum, None, "accum"),
    "keras momentum": _raw(_keras_momentum, _sparse_keras_momentum, "accum"),
    "adam": _raw(_adam, None, "m", "v"),
    "ftrl": _raw(_ftrl, None, "accum", "linear"),
    "rmsprop": _raw(_rms, _sparse_rms, "ms", "mom"),
}

OPTIMIZERS: dict[str, Callable[[], Trained]] = {
    "tf_keras SGD": lambda: _tf_keras(tf_keras.optimizers.SGD(0.1, momentum=0.9)),
    "tf_keras Adam": lambda: _tf_keras(tf_keras.optimizers.Adam(0.1)),
    "tf_keras AdamW": lambda: _tf_keras(tf_keras.optimizers.AdamW(0.1, weight_decay=0.1)),
    "legacy Adam": lambda: _tf_keras(tf_keras.optimizers.legacy.Adam(0.1)),
    "legacy SGD": lambda: _tf_keras(tf_keras.optimizers.legacy.SGD(0.1, momentum=0.9, nesterov=True)),
    "tf_keras RMSprop": lambda: _tf_keras(tf_keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True)),
    "tf_keras Adagrad": lambda: _tf_keras(tf_keras.optimizers.Adagrad(0.1)),
    "tf_keras Adamax": lambda: _tf_keras(tf_keras.optimizers.Adamax(0.1)),
    "Keras 3 SGD": lambda: _keras_3(keras.optimizers.SGD(0.1, momentum=0.9)),
    "Keras 3 Adam": lambda: _keras_3(keras.optimizers.Adam(0.1, amsgrad=True)),
    "Keras 3 AdamW": lambda: _keras_3(keras.optimizers.AdamW(0.1, weight_decay=0.1)),
    "Keras 3 RMSprop": lambda: _keras_3(keras.optimizers.RMSprop(0.1)),
    "Keras 3 RMSprop with momentum": lambda: _keras_3(keras.optimizers.RMSprop(0.1, momentum=0.5, centered=True)),
    "Keras 3 Adagrad": lambda: _keras_3(keras.optimizers.Adagrad(0.1)),
    "Keras 3 Adadelta": lambda: _keras_3(keras.optimizers.Adadelta(0.1)),
    "Keras 3 clipping": lambda: _keras_3(keras.optimizers.SGD(0.5, global_clipnorm=0.01)),
    "Keras 3 averages": lambda: _keras_3(
        keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    ),
    "Keras 3 accumulation": lambda: _accumulating(
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2)
    ),
    "Keras 3 accumulation with clipping": lambda: _accumulating(
        keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=2, global_clipnorm=0.01)
    ),
    "Keras 3 clipping of each": lambda: _keras_3(keras.optimizers.SGD(0.5, momentum=0.9, clipnorm=0.01)),
    "Keras 3 Lamb": lambda: _keras_3(keras.optimizers.Lamb(0.1)),
    "Keras 3 Lion": lambda: _keras_3(keras.optimizers.Lion(0.1)),
    "Keras 3 Adafactor": lambda: _keras_3_variables(keras.optimizers.Adafactor(0.1)),
    "Keras 3 Adafactor, dense": lambda: _keras_3_variables(keras.optimizers.Adafactor(0.1), dense=True),
    "Keras 3 Muon": lambda: _keras_3_variables(keras.optimizers.Muon(0.1), dense=True),
    "Keras 3 Muon, plain": lambda: _keras_3_variables(
        keras.optimizers.Muon(0.1, nesterov=False, clipnorm=0.5, rms_rate=None), dense=True
    ),
    "Keras 3 loss scale": lambda: _keras_3(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5, momentum=0.9, global_clipnorm=0.01))
    ),
    "Keras 3 loss scale with Adam": lambda: _keras_3(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.1, clipnorm=0.01))
    ),
    "clipping in a function": _in_functions,
    "clipping by the global norm": lambda: _clipped(lambda gradients: tf.clip_by_global_norm(gradients, 0.1)[0]),
    "clipping of each": lambda: _clipped(lambda gradients: [tf.clip_by_norm(g, 0.1) for g in gradients]),
    "tf_keras clipping": lambda: _tf_keras(tf_keras.optimizers.SGD(0.5, momentum=0.9, global_clipnorm=0.01)),
    "trust ratio": _trust_ratio,
    "Keras 3 accumulation with Adam": lambda: _accumulating(keras.optimizers.Adam(0.1, gradient_accumulation_steps=2)),
}


def save(module: Trained, path: Path, trained: int = 2) -> Path:
    """Train a little, so that no slot is zero, and save with a training signature."""
    for _ in range(trained):
        module.train(**BATCH)
    tf.saved_model.save(module, str(path), signatures={"train": module.train, "predict": module.predict})
    return path


def steps(loaded: Any, count: int) -> None:
    """Run the training signature."""
    for _ in range(count):
        loaded.signatures["train"](**BATCH)
