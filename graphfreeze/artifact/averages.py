"""The averages of parameters over the steps, which an optimizer with `use_ema` keeps beside them.

Keras' `fit` ends with `Optimizer.finalize_variable_values`, which puts the averages in the place of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from graphfreeze.artifact.frozen import FrozenElements
from graphfreeze.artifact.manifest import Manifest, StateEntry

__all__ = ["Averages"]

_KIND = "average"
_ITERATION = "iteration"


class Averages:
    """Where a state holds them.

    Args:
        manifest: What the artifact says of its state.
        state: The state, as it is stored.
    """

    def __init__(self, manifest: Manifest, state: Mapping[str, npt.NDArray[Any]]) -> None:
        self._state = state
        self._places: dict[str, tuple[str, int]] = {}
        for entry in manifest.state:
            kind = entry.name.rpartition("/")[2]
            if entry.role != "optimizer_state":
                continue
            # Before the first step they are zero.
            if kind == _ITERATION and not state[entry.name]:
                self._places = {}
                return
            if kind == _KIND and entry.parameter is not None:
                self._places[entry.parameter] = entry.name, 0
            elif kind == _KIND and entry.parts is not None:
                first = 0
                for part in entry.parts:
                    self._places[part.parameter] = entry.name, first
                    first += part.elements

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._places)

    def of(self, entry: StateEntry, frozen: FrozenElements) -> npt.NDArray[Any]:
        """The average of a parameter, as it is stored, frozen elements with their own bits; others as they are."""
        if entry.name not in self._places:
            return self._state[entry.name]
        name, first = self._places[entry.name]
        values = self._state[entry.name]
        average = self._state[name].reshape(-1)[first : first + values.size].reshape(values.shape)
        part = frozen.partly.get(entry.name)
        if part is not None:
            average = average.copy()
            average[part.stored_frozen] = values[part.stored_frozen]
        return average
