"""Which output has which loss, and what the targets of a training step are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from graphfreeze.errors import UnsupportedError, UsageError
from graphfreeze.selection.nearest import suggest
from graphfreeze.training.endpoint import (
    ADDED_LOSSES,
    LOGITS_PREFIX,
    MASK_PREFIX,
    OPERATION_PREFIXES,
    Endpoint,
    TensorEntry,
)
from graphfreeze.training.losses import OutputLoss, make_loss, target_spec
from graphfreeze.training.optimizers import LEARNING_RATE

__all__ = ["SAMPLE_WEIGHT", "TARGET", "Objective", "Term", "make_objective"]

TARGET = "y"
"""The key of the targets in the data contract; `y.NAME` where the endpoint has several outputs."""

SAMPLE_WEIGHT = "sample_weight"
"""The key of the weights of the examples in the data contract."""


@dataclass(frozen=True)
class Term:
    """One term of the loss: an output, its target, and what compares them.

    Attributes:
        output: The output.
        target: The entry of its targets in the data contract.
        loss: The loss as asked for; its `output` is None where the endpoint has one output.
        function: The Keras loss.
    """

    output: TensorEntry
    target: TensorEntry
    loss: OutputLoss
    function: Any


@dataclass(frozen=True)
class Objective:
    """What a training step minimises.

    Attributes:
        terms: The losses, in the order of the outputs.
        sample_weight: The entry of the examples' weights in the data contract, or None.
        without_loss: The names of the outputs that no loss takes.
    """

    terms: tuple[Term, ...]
    sample_weight: TensorEntry | None
    without_loss: tuple[str, ...]

    @property
    def batch(self) -> tuple[TensorEntry, ...]:
        """What the data contract holds besides the endpoint's inputs."""
        weights = () if self.sample_weight is None else (self.sample_weight,)
        return (*(term.target for term in self.terms), *weights)

    @property
    def named(self) -> list[str]:
        """The names of the single losses among the step's results: none where the endpoint has one output."""
        return [f"loss/{term.output.name}" for term in self.terms if term.loss.output is not None]

    def __call__(self, batch: dict[str, Any], endpoint: Endpoint) -> tuple[Any, list[Any]]:
        """The loss of a batch, and the loss of each output by itself, without its weight.

        As Keras has it: each loss takes the examples' weights, the sum takes the losses' weights, and what the model
        itself adds (regularisers, `add_loss`) comes on top.

        Raises:
            UsageError: A loss does not fit its output.
        """
        results = endpoint.named(batch)
        weights = None if self.sample_weight is None else batch[SAMPLE_WEIGHT]
        single = []
        for term in self.terms:
            prediction = _as_in_keras(term.output.name, results)
            try:
                found = term.function(batch[term.target.name], prediction, _per_element(weights, prediction))
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"the loss {term.loss.loss.name} does not fit the output {term.output.name} {term.output.shape} of "
                    f"{endpoint.name!r}, or its arguments {dict(term.loss.loss.arguments)} are wrong: {error}"
                ) from error
            single.append(found)
        weighted = [
            found if term.loss.weight == 1.0 else found * tf.cast(term.loss.weight, found.dtype)
            for term, found in zip(self.terms, single, strict=True)
        ]
        total = weighted[0]
        for loss in weighted[1:]:
            total += loss
        if ADDED_LOSSES in results:
            total += tf.cast(tf.reduce_sum(results[ADDED_LOSSES]), total.dtype)
        return total, single if self.named else []


def _as_in_keras(name: str, results: dict[str, Any]) -> Any:
    """An output with what Keras' layers say of it: which time steps count, and of which logits it is."""
    prediction = results[name]
    if (logits := results.get(OPERATION_PREFIXES["Softmax"] + name)) is not None:
        prediction = tf.nn.softmax(logits)
    if (logits := results.get(OPERATION_PREFIXES["Sigmoid"] + name)) is not None:
        prediction = tf.sigmoid(logits)
    if (logits := results.get(LOGITS_PREFIX + name)) is not None:
        prediction._keras_logits = logits
    if (mask := results.get(MASK_PREFIX + name)) is not None:
        prediction._keras_mask = mask
    return prediction


def make_objective(endpoint: Endpoint, losses: Sequence[OutputLoss], *, sample_weight: bool) -> Objective:
    """Match losses and outputs.

    Args:
        endpoint: The endpoint that trains.
        losses: The losses that were asked for.
        sample_weight: Whether each example has a weight.

    Raises:
        UsageError: An output does not exist, has two losses or a loss that does not fit, or it is not said which of
            several outputs a loss is for.
        UnsupportedError: An input of the endpoint has a name that the data contract needs.
    """
    outputs = {entry.name: entry for entry in endpoint.predictions}
    single = len(outputs) == 1
    chosen: dict[str, OutputLoss] = {}
    for loss in losses:
        name = next(iter(outputs)) if single and loss.output is None else loss.output
        if name is None:
            raise UsageError(
                f"the endpoint {endpoint.name!r} has {len(outputs)} outputs: say which one the loss "
                f"{loss.loss.name!r} is for, OUTPUT={loss.loss.name}; the outputs are {', '.join(outputs)}"
            )
        if name not in outputs:
            raise UsageError(
                f"no output {name!r} in the endpoint {endpoint.name!r}; {suggest(name, outputs)}. "
                f"The outputs are {', '.join(outputs)}"
            )
        if name in chosen:
            raise UsageError(f"two losses for the output {name!r}: {chosen[name].loss.name} and {loss.loss.name}")
        chosen[name] = OutputLoss(None if single else name, loss.loss, loss.weight)
    terms = []
    for name, output in outputs.items():
        if name not in chosen:
            continue
        loss = chosen[name]
        key = TARGET if single else f"{TARGET}.{name}"
        target = TensorEntry(key, *target_spec(loss.loss, output.shape, output.dtype))
        if None in target.shape[1:] and not any(None in entry.shape[1:] for entry in endpoint.inputs):
            raise UnsupportedError(
                f"the output {name!r} of {endpoint.name!r} has the shape {output.shape}, of which no input tells the "
                "sizes behind the first (they may follow the batch too): it cannot have targets of that shape; choose "
                "another output, or where the last axis are classes, sparse_categorical_crossentropy"
            )
        terms.append(Term(output, target, loss, make_loss(loss.loss)))
    batch_size = terms[0].output.shape[0] if terms[0].output.shape else None
    weights = TensorEntry(SAMPLE_WEIGHT, (batch_size,), "float32") if sample_weight else None
    objective = Objective(tuple(terms), weights, tuple(name for name in outputs if name not in chosen))
    taken = {entry.name for entry in objective.batch} | {"loss", LEARNING_RATE}
    for entry in endpoint.inputs:
        if entry.name in taken:
            raise UnsupportedError(
                f"an input of {endpoint.name!r} is named {entry.name!r}, as the step calls its targets, weights, loss "
                "or learning rate: rename it"
            )
    return objective


def _per_element(weights: Any, prediction: Any) -> Any:
    """One weight per example, with axes of size one for whatever else the loss has a value for."""
    rank = len(prediction.shape)
    if weights is None or rank <= 2:
        return weights
    return tf.reshape(weights, [-1] + [1] * (rank - 2))
