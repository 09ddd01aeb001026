"""The original and the rewritten model, loaded for as many comparisons as leave them as they were loaded.

Loading a Keras 2 save with recurrent layers takes seconds: TensorFlow makes a graph of each of its hundreds of
functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from graphfreeze.checks.side import Side
from graphfreeze.checks.state_changes import may_change_state
from graphfreeze.selection.plan import FreezePlan
from graphfreeze.selection.variable import Variable

__all__ = ["LoadedPair"]


class _Result(Protocol):
    @property
    def complete(self) -> bool:
        """Whether both models could be run and differentiated."""


R = TypeVar("R", bound=_Result)


class LoadedPair:
    """Two models that are loaded when they are needed.

    Args:
        original: The original SavedModel.
        rewritten: The rewritten one.
        variables: The variables of both.
    """

    def __init__(self, original: Path, rewritten: Path, variables: Sequence[Variable]) -> None:
        self._paths = (original, rewritten)
        self._variables = variables
        self._loaded: list[Any] = [None, None]
        self._plan: FreezePlan | None = None
        # TensorFlow loses the gradient functions of loops when the first trace of them is gone.
        self._kept: list[Side] = []

    @property
    def original(self) -> Any:
        """The loaded original."""
        return self._load(0)

    def compare(self, endpoint: str, plan: FreezePlan, observe: Callable[[Side, Side], R]) -> R:
        """Observe an endpoint of both models, the original with a plan's frozen values.

        Where a comparison may have changed more than variables, whose values it puts back, or something failed, the
        models are loaded anew for the next one; where something fails in models that have run before, they are loaded
        anew and observed once more. So it never matters what was compared before.
        """
        if plan is not self._plan and self._plan is not None:
            self._forget()
        if self._kept:
            try:
                result = self._observe(endpoint, plan, observe)
            except (LookupError, tf.errors.OpError):
                pass
            else:
                if result.complete:
                    return result
            self._forget()
        return self._observe(endpoint, plan, observe)

    def _observe(self, endpoint: str, plan: FreezePlan, observe: Callable[[Side, Side], R]) -> R:
        before, after = (Side.at(self._load(i), endpoint, self._variables) for i in (0, 1))
        if self._plan is None:
            before.assign(plan)
            self._plan = plan
        self._kept += [before, after]
        result = observe(before, after)
        if not result.complete or any(_leaves_changes(side) for side in (before, after)):
            self._forget()
        return result

    def _load(self, index: int) -> Any:
        if self._loaded[index] is None:
            self._loaded[index] = tf.saved_model.load(str(self._paths[index]))
        return self._loaded[index]

    def _forget(self) -> None:
        self._loaded = [None, None]
        self._plan = None
        self._kept = []


def _leaves_changes(side: Side) -> bool:
    """Whether the gradients of an endpoint, and so the endpoint itself, may change more than what is put back."""
    return may_change_state(side.function, [resource.handle for resource in side.resources.values()])
