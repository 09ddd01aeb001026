"""One thing to convert: a model, a loss, an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

__all__ = ["Case", "Draw", "after_dense", "choose", "integers", "uniform"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], npt.NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        group: The section of docs/coverage.md.
        name: What it shows.
        make: Builds the Keras model. Cases with the same function share one export.
        loss: As on the command line.
        optimizer: As on the command line; several where several are given there.
        inputs: How to draw inputs that are not simply normal numbers, by name; names that the model lacks are ignored.
        batch_size: How many examples.
        steps: Whether single optimizer steps are compared too.
        tracks: What the row is about: a class or function of Keras, by its name there.
        save: Writes the SavedModel of what `make` built, where that is no model of Keras 3.
    """

    group: str
    name: str
    make: Callable[[], Any]
    loss: str = "mse"
    optimizer: str | tuple[str, ...] = "sgd"
    inputs: Mapping[str, Draw] = field(default_factory=dict)
    batch_size: int = 4
    steps: bool = False
    tracks: str | None = None
    save: Callable[[Any, Path], None] | None = None

    @property
    def key(self) -> str:
        """How the command line names it."""
        return f"{self.group}/{self.name}"


def choose(cases: Iterable[Case], patterns: Iterable[str]) -> list[Case]:
    """The cases of which a pattern (with `*` and `?`) matches the key, the group or the name; all without patterns."""
    from fnmatch import fnmatchcase

    wanted = list(patterns)
    return [
        case
        for case in cases
        if not wanted or any(fnmatchcase(text, p) for p in wanted for text in (case.key, case.group, case.name))
    ]


def integers(high: int, low: int = 0) -> Draw:
    """Whole numbers from `low` up to `high`, exclusive."""
    return lambda rng, shape: rng.integers(low, high, shape)


def uniform(low: float, high: float) -> Draw:
    """Numbers between the bounds."""
    return lambda rng, shape: rng.uniform(low, high, shape)


def after_dense(shape: tuple[int | None, ...], *layers: Callable[[Any], Any]) -> Callable[[], Any]:
    """A model of the layers, with a Dense before them, so that a gradient has to pass through every one of them.

    Each layer is given as a function, which makes it when the model is made.
    """

    def make() -> Any:
        x = keras.Input(shape, name="x")
        h = keras.layers.Dense(shape[-1], name="before")(x)
        for layer in layers:
            h = layer(h)
        return keras.Model(x, h, name="model")

    return make
