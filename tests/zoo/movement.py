"""Which elements must move: the optimizers' formulas, followed in float64 beside the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tests.zoo.data import Array

__all__ = ["FOLLOWED", "Gradient", "Movement", "optimizer_arguments", "same_bits"]

FOLLOWED = 4
"""How many steps are followed element by element: each batch twice."""


def optimizer_arguments(text: str) -> dict[str, float]:
    """The arguments of an optimizer as on the command line: `NAME:key=value,...`."""
    pairs = (argument.split("=") for argument in text.partition(":")[2].split(","))
    return {key: float(value) for key, value in pairs}


def same_bits(a: Array, b: Array) -> Array:
    """Where two arrays of one shape and dtype have the same bits."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    unsigned = f"u{a.dtype.itemsize}"
    return np.asarray(np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned)).reshape(a.shape)


@dataclass(frozen=True)
class Gradient:
    """A gradient, and what Keras takes for its square.

    Attributes:
        total: The gradient.
        squares: Of a table whose rows were looked up several times Keras squares what comes from each place on its own,
            and adds the squares.
    """

    total: Array
    squares: Array

    @classmethod
    def of(cls, value: Array, rows: Array | None = None, size: int = 0) -> Gradient:
        """A gradient of those values, each for a row of a table of that size where rows are given."""
        exact = value.astype(np.float64)
        if rows is None:
            return cls(exact, np.square(exact))
        total, squares = np.zeros((2, size, *exact.shape[1:]))
        np.add.at(total, rows, exact)
        np.add.at(squares, rows, np.square(exact))
        return cls(total, squares)


class Movement:
    """Checks of each step that what has an update moves, and at the end that what is frozen has not."""

    def __init__(self, optimizer: str, before: Mapping[str, Array], frozen: Mapping[str, Array]) -> None:
        self._is_sgd = optimizer.startswith("sgd")
        self._arguments = optimizer_arguments(optimizer)
        self._first = self._last = before
        self._frozen = frozen
        self._steps = 0
        self._momentum: dict[str, Array] = {}
        self._squares: dict[str, Array] = {}

    def step(self, after: Mapping[str, Array], gradients: Mapping[str, Gradient]) -> None:
        """Follow a step from the values that the last one left.

        An update above half the distance to the next number changes a number. Weight decay and the rest of the update
        are added one after the other, and either may be rounded: together they count above two distances.

        Args:
            after: The value of each variable.
            gradients: What the step was made of.
        """
        self._steps += 1
        updates = self._sgd(gradients) if self._is_sgd else self._adam(gradients)
        for name, update in updates.items():
            must = np.abs(update) > 2 * np.spacing(np.abs(self._last[name]))
            stuck = must & same_bits(self._last[name], after[name]) & ~self._frozen.get(name, np.False_)
            assert not stuck.any(), (name, np.count_nonzero(stuck))
        self._last = after

    def check(self, last: Mapping[str, Array]) -> None:
        """Every frozen element has kept its bits since the beginning, and something has moved."""
        for name, mask in self._frozen.items():
            assert same_bits(self._first[name], last[name])[mask].all(), name
        assert any((~same_bits(self._first[name], last[name])).any() for name in self._momentum)

    def _sgd(self, gradients: Mapping[str, Gradient]) -> dict[str, Array]:
        """Keras' SGD with momentum, of gradients clipped by their global norm."""
        norm = float(np.sqrt(sum(np.sum(gradient.squares) for gradient in gradients.values())))
        rate = self._arguments["learning_rate"] * min(1.0, self._arguments["global_clipnorm"] / norm)
        for name, gradient in gradients.items():
            kept = self._arguments["momentum"] * self._momentum.get(name, 0.0)
            self._momentum[name] = kept - rate * gradient.total
        return dict(self._momentum)

    def _adam(self, gradients: Mapping[str, Gradient]) -> dict[str, Array]:
        """Keras' Adam and AdamW with their default betas and epsilon: section 2 of https://arxiv.org/abs/1412.6980."""
        one, two, epsilon = 0.9, 0.999, 1e-7
        rate, decay = self._arguments["learning_rate"], self._arguments.get("weight_decay", 0.0)
        corrected = rate * np.sqrt(1 - two**self._steps) / (1 - one**self._steps)
        updates = {}
        for name, gradient in gradients.items():
            self._momentum[name] = one * self._momentum.get(name, 0.0) + (1 - one) * gradient.total
            self._squares[name] = two * self._squares.get(name, 0.0) + (1 - two) * gradient.squares
            step = corrected * self._momentum[name] / (np.sqrt(self._squares[name]) + epsilon)
            updates[name] = -rate * decay * self._last[name] - step
        return updates
