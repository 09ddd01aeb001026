"""The rewritten SavedModel trained in TensorFlow, as its user would: a gradient tape and a Keras optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.zoo.data import Array
from tests.zoo.movement import FOLLOWED, Gradient, Movement, optimizer_arguments
from tests.zoo.rewriting import Rewritten, variables_of

__all__ = ["TensorFlowSide", "Trained"]

_OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}


@dataclass(frozen=True)
class Trained:
    """What training did.

    Attributes:
        values: What each variable holds afterwards, its storage or, where an element is frozen, the frozen value.
        losses: The loss of each step.
    """

    values: Mapping[str, Array]
    losses: Sequence[float]


class TensorFlowSide:
    """The rewritten SavedModel, loaded once; its gradients are traced once."""

    def __init__(self, rewritten: Rewritten) -> None:
        self.loaded = tf.saved_model.load(str(rewritten.out / "saved_model"))
        self.variables = variables_of(self.loaded)
        self.initial = {name: variable.numpy() for name, variable in self.variables.items()}
        self.trainable = {name: v for name, v in self.variables.items() if v.trainable}
        self._frozen = rewritten.frozen
        self._endpoint = getattr(self.loaded, rewritten.model.endpoint)
        self._loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._gradients = tf.function(self._trace, autograph=False, reduce_retracing=True)

    def assign(self, values: Mapping[str, Array]) -> None:
        """Give variables their values."""
        for name, value in values.items():
            self.variables[name].assign(value)

    def serve(self, inputs: Array) -> Array:
        """The outputs of the inference endpoint."""
        return np.asarray(self.loaded.serve(inputs).numpy())

    def gradients(self, inputs: Array, labels: Array) -> tuple[float, dict[str, Array]]:
        """Loss and gradients of a batch from the initial values."""
        self.assign(self.initial)
        loss, found = self._gradients(tf.constant(inputs), tf.constant(labels))
        self.assign(self.initial)
        return float(loss), {name: tf.convert_to_tensor(gradient).numpy() for name, gradient in found.items()}

    def noise(self, inputs: Array, labels: Array, units: int = 1, draws: int = 1) -> dict[str, float]:
        """The largest change of each gradient when parameters and inputs move by so many units in the last place."""
        _, exact = self.gradients(inputs, labels)
        found = dict.fromkeys(exact, 0.0)
        for draw in range(draws):
            random = np.random.default_rng(draw)
            self.assign({name: _moved(self.initial[name], units, random) for name in self.trainable})
            _, moved = self._gradients(tf.constant(_moved(inputs, units, random)), tf.constant(labels))
            for name, gradient in moved.items():
                found[name] = max(found[name], float(np.abs(tf.convert_to_tensor(gradient) - exact[name]).max()))
        self.assign(self.initial)
        return found

    def train(self, text: str, batches: Sequence[tuple[Array, Array]]) -> Trained:
        """Train from the initial values, one step for each batch."""
        self.assign(self.initial)
        losses: list[float] = []
        movement = Movement(text, self.initial, self._frozen)
        optimizer = _make_optimizer(text)
        for step, (inputs, labels) in enumerate(batches):
            loss, found = self._gradients(tf.constant(inputs), tf.constant(labels))
            optimizer.apply(list(found.values()), [self.variables[name] for name in found])
            effective = {
                name: np.where(self._frozen.get(name, np.False_), self.initial[name], variable.numpy())
                for name, variable in self.variables.items()
            }
            if step < FOLLOWED:
                movement.step(effective, {name: _gradient_of(gradient) for name, gradient in found.items()})
            losses.append(float(loss))
        movement.check(effective)
        return Trained(effective, losses)

    def _trace(self, inputs: Any, labels: Any) -> tuple[Any, dict[str, Any]]:
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self._endpoint(inputs))
        found = tape.gradient(loss, self.trainable)
        return loss, {name: gradient for name, gradient in found.items() if gradient is not None}


def _make_optimizer(text: str) -> Any:
    """The Keras optimizer that the command line calls by this text."""
    return _OPTIMIZERS[text.partition(":")[0]](**optimizer_arguments(text))


def _gradient_of(found: Any) -> Gradient:
    if isinstance(found, tf.IndexedSlices):
        return Gradient.of(found.values.numpy(), found.indices.numpy(), int(found.dense_shape[0]))
    return Gradient.of(found.numpy())


def _moved(array: Array, units: int, random: np.random.Generator) -> Array:
    """Each number that is not whole, moved by up to so many units in the last place."""
    if array.dtype.kind != "f":
        return array
    moved = array + np.spacing(array) * random.integers(-units, units + 1, array.shape).astype(array.dtype)
    return np.where(array == np.rint(array), array, moved)
