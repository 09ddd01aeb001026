"""A table of arrays as a source of variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.selection import FreezePlan, FrozenVariable, Selection, Variable, resolve_plan


class TableSource:
    """Variables and their values; it remembers which values were read."""

    def __init__(self, table: Mapping[str, npt.NDArray[Any]], *, state: Iterable[str] = ()) -> None:
        self._values: dict[Variable, npt.NDArray[Any]] = {}
        self.read_names: list[str] = []
        for number, (name, value) in enumerate(table.items()):
            # A name may come twice: what follows a # only keeps the keys of the table apart.
            plain = name.partition("#")[0]
            variable = Variable(plain, f"variables/{number}", value.shape, value.dtype.name, name not in state)
            self._values[variable] = value
        self.variables = sorted(self._values, key=lambda variable: (variable.name, variable.object_path))

    def read(self, variable: Variable) -> npt.NDArray[Any]:
        self.read_names.append(variable.name)
        return self._values[variable]


def plan_of(source: TableSource, *selections: str, **options: Any) -> FreezePlan:
    """The plan of selections written as `freeze SELECTOR` or `train SELECTOR`."""
    parsed = []
    for text in selections:
        kind, _, selector = text.partition(" ")
        parsed.append(Selection("freeze" if kind == "freeze" else "train", selector))
    return resolve_plan(parsed, source, **options)


def only(plan: FreezePlan) -> FrozenVariable:
    """The one variable of the plan."""
    (frozen,) = plan.variables
    return frozen


def frozen_positions(frozen: FrozenVariable) -> list[tuple[int, ...]]:
    """The positions of the frozen elements, in order."""
    return [tuple(int(axis) for axis in position) for position in np.argwhere(~frozen.full_mask)]
