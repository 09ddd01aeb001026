"""The learning rates of an artifact's optimizers, which may be set between steps."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from graphfreeze.artifact.manifest import Manifest
from graphfreeze.errors import UsageError
from graphfreeze.runtime.device_state import DeviceState

__all__ = ["LearningRates"]

LEARNING_RATE = "learning_rate"


class LearningRates:
    """The learning rates in a state.

    Args:
        manifest: What the artifact says of its state.
        state: The state.
    """

    def __init__(self, manifest: Manifest, state: DeviceState) -> None:
        self._state = state
        self._names = [entry.name for entry in manifest.state if entry.role == "hyperparameter"]
        self._optimizers = ", ".join(optimizer.name for optimizer in manifest.optimizers)

    def read(self) -> Mapping[str, float]:
        """All of them by name, in the order of the optimizers. It cannot be changed."""
        return MappingProxyType({name: self.of(name) for name in self._names})

    def of(self, name: str = LEARNING_RATE) -> float:
        """One of them.

        Raises:
            UsageError: There is none of that name.
        """
        self._require(name)
        return float(self._state.read(name))

    def write(self, rates: Mapping[str, float]) -> None:
        """Set these; the others stay.

        Raises:
            UsageError: There is none of that name. Nothing is set then.
        """
        for name in rates:
            self._require(name)
        for name, value in rates.items():
            self._state.write(name, np.asarray(value, dtype=self._state.read(name).dtype))

    def _require(self, name: str) -> None:
        if name not in self._names:
            what = "learning rate" if name == LEARNING_RATE else f"{name!r}"
            raise UsageError(
                f"The optimizer {self._optimizers} has no {what} that can be set; its hyperparameters are "
                f"{self._names}. A schedule is part of the training step."
            )
