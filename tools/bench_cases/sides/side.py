"""What a tool has to offer to be measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LEARNING_RATE", "Arrays", "CannotRunError", "Side", "load_batch"]

LEARNING_RATE = 1e-3
"""Of Adam, which every tool trains with."""

Arrays = dict[str, npt.NDArray[Any]]


class CannotRunError(Exception):
    """The tool cannot train this model. The message is the reason, as the document shows it."""


@dataclass(frozen=True)
class Side:
    """A training step that can be repeated.

    Attributes:
        step: Trains on the batch once and returns the loss of before the update.
        versions: The packages that do the work.
        parameters: How many trainable numbers there are; None where the tool does not say.
    """

    step: Callable[[], float]
    versions: Mapping[str, str] = field(default_factory=dict)
    parameters: int | None = None


def load_batch(directory: Path) -> Arrays:
    """The batch of a prepared model: its inputs by name, and the labels `y`."""
    with np.load(directory / "batch.npz") as stored:
        return {name: stored[name] for name in stored.files}
