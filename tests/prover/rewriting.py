"""Freeze plans for the test models, and rewritten models made by the product's own pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import Form, FreezePlan, FrozenVariable
from graphfreeze.selection.variable import numpy_dtype

__all__ = ["freeze_plan", "rewrite"]


def freeze_plan(
    original: Path, paths: Sequence[str], form: Form, mask: npt.NDArray[np.bool_] | None = None
) -> FreezePlan:
    """A plan with random masks and values for the variables at these object paths (all trainable ones for `*`)."""
    variables = {v.object_path: v for v in SavedModel.load(original).variables}
    if list(paths) == ["*"]:
        paths = [path for path, variable in variables.items() if variable.trainable]
    random = np.random.default_rng(3)
    frozen = []
    for path in paths:
        variable = variables[path]
        chosen = random.random(variable.shape) < 0.5 if mask is None else mask
        # At least one element of each kind, where there are two.
        chosen.reshape(-1)[:1] = False
        chosen.reshape(-1)[1:2] = True
        value: npt.NDArray[Any] = random.standard_normal(variable.shape).astype(numpy_dtype(variable.dtype))
        frozen.append(FrozenVariable(variable, chosen, np.where(chosen, np.zeros((), value.dtype), value), form))
    return FreezePlan(tuple(frozen))


def rewrite(original: Path, rewritten: Path, plan: FreezePlan) -> Path:
    """Apply the freeze pass, and write what it yields."""
    write(freeze_reads(SavedModel.load(original), plan), rewritten)
    return rewritten
