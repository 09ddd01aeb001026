"""The rewritten SavedModel trained in TensorFlow, as its user would: a gradient tape and a Keras optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.zoo.data import Array
from tests.zoo.rewriting import Movement, Rewritten, variables_of

__all__ = ["TensorFlowSide", "Trained", "update_sizes"]

_OPTIMIZERS = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}


@dataclass(frozen=True)
class Trained:
    """What training did.

    Attributes:
        values: What each variable holds afterwards, its storage or, where an element is frozen, the frozen value.
        movement: How that came about.
        losses: The loss of each step.
    """

    values: Mapping[str, Array]
    movement: Movement
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

    def train(self, text: str, batches: Sequence[tuple[Array, Array]]) -> Trained:
        """Train from the initial values, one step for each batch."""
        self.assign(self.initial)
        losses: list[float] = []
        movement = Movement(self.initial)
        optimizer = _make_optimizer(text)
        for inputs, labels in batches:
            loss, found = self._gradients(tf.constant(inputs), tf.constant(labels))
            optimizer.apply(list(found.values()), [self.variables[name] for name in found])
            gradients = {name: tf.convert_to_tensor(gradient).numpy() for name, gradient in found.items()}
            effective = {
                name: np.where(self._frozen.get(name, np.False_), self.initial[name], variable.numpy())
                for name, variable in self.variables.items()
            }
            movement.note(effective, update_sizes(text, gradients))
            losses.append(float(loss))
        return Trained(effective, movement, losses)

    def _trace(self, inputs: Any, labels: Any) -> tuple[Any, dict[str, Any]]:
        with tf.GradientTape() as tape:
            loss = self._loss(labels, self._endpoint(inputs))
        found = tape.gradient(loss, self.trainable)
        return loss, {name: gradient for name, gradient in found.items() if gradient is not None}


def update_sizes(text: str, gradients: Mapping[str, Array]) -> dict[str, Array]:
    """About how far the optimizer of that text moves each element where the gradient has been this for a while."""
    arguments = _arguments(text)
    rate = arguments["learning_rate"]
    if text.startswith("sgd"):
        norm = np.sqrt(sum(float(np.sum(np.square(gradient))) for gradient in gradients.values()))
        rate *= min(1.0, arguments["global_clipnorm"] / norm)
        return {name: rate * np.abs(gradient) for name, gradient in gradients.items()}
    epsilon = 1e-7
    return {name: rate * np.abs(gradient) / (np.abs(gradient) + epsilon) for name, gradient in gradients.items()}


def _make_optimizer(text: str) -> Any:
    """The Keras optimizer that the command line calls by this text."""
    return _OPTIMIZERS[text.partition(":")[0]](**_arguments(text))


def _arguments(text: str) -> dict[str, float]:
    pairs = (argument.split("=") for argument in text.partition(":")[2].split(","))
    return {key: float(value) for key, value in pairs}
