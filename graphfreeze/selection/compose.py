"""Two freeze plans for one model, one after the other, as one plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import UnsupportedError
from graphfreeze.selection.masks import smallest_broadcastable
from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.variable import Variable, VariableSource

__all__ = ["EffectiveValues", "compose_plans"]


@dataclass(frozen=True)
class EffectiveValues:
    """The variables of a model that an earlier plan froze, with the values that it computes with.

    Attributes:
        source: The variables as they are stored, where training may have moved what is frozen.
        plan: The earlier plan.
    """

    source: VariableSource
    plan: FreezePlan

    @property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, sorted by name, then object path."""
        return tuple(self.source.variables)

    def read(self, variable: Variable) -> npt.NDArray[Any]:
        """The variable's effective value."""
        stored = self.source.read(variable)
        frozen = self.plan.find(variable.object_path)
        return stored if frozen is None else np.where(frozen.full_mask, stored, frozen.value)


def compose_plans(earlier: FreezePlan, later: FreezePlan) -> FreezePlan:
    """The plan that freezes what either of two plans freezes.

    An element that the earlier plan froze keeps the value that it was frozen at: frozen is for ever. A variable takes
    the form select where either plan has it, because its guarantee includes that of blend.

    Raises:
        UnsupportedError: The plans are for different endpoints, or different graphs.
    """
    if earlier.only_in != later.only_in:
        raise UnsupportedError(
            f"The model was rewritten before, for {_endpoints(earlier)}, and is to be rewritten for "
            f"{_endpoints(later)}. Both must be the same: fold the earlier rewrite first, or give the same endpoints."
        )
    if earlier.tags != later.tags:
        tags = [",".join(plan.tags or ()) or "(none)" for plan in (earlier, later)]
        raise UnsupportedError(
            f"The model was rewritten before in terms of the graph tagged {tags[0]}, and is to be rewritten in those "
            f"of {tags[1]}. Give the same tags."
        )
    paths = {frozen.variable.object_path: frozen.variable for plan in (later, earlier) for frozen in plan.variables}
    variables = []
    for path in sorted(paths, key=lambda p: (paths[p].name, p)):
        first, second = earlier.find(path), later.find(path)
        if first is None or second is None:
            variables += [frozen for frozen in (first, second) if frozen is not None]
        else:
            variables.append(_union(first, second))
    return FreezePlan(tuple(variables), later.only_in, later.tags)


def _union(first: FrozenVariable, second: FrozenVariable) -> FrozenVariable:
    return FrozenVariable(
        variable=second.variable,
        mask=smallest_broadcastable(np.asarray(first.mask & second.mask)),
        value=np.where(first.full_mask, second.value, first.value),
        form="select" if "select" in (first.form, second.form) else "blend",
        selectors=(*first.selectors, *second.selectors),
    )


def _endpoints(plan: FreezePlan) -> str:
    return f"the endpoints {', '.join(plan.only_in)} only" if plan.only_in else "all endpoints"
