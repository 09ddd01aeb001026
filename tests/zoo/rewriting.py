"""A model of the zoo, exported by Keras and rewritten, and what an independent look at it says is frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphfreeze import Selection, rewrite
from tests.zoo.data import Array
from tests.zoo.models import LOSS, ZooModel

__all__ = ["Rewritten", "variables_of"]


@dataclass
class Rewritten:
    """A model of the zoo with what `rewrite` made of it.

    Attributes:
        model: What it is.
        original: The SavedModel that Keras exported.
        out: The OUT of the rewrite.
        report: The report of the rewrite.
    """

    model: ZooModel
    original: Path
    out: Path
    report: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(cls, model: ZooModel, directory: Path) -> Rewritten:
        """Export and rewrite it, with all checks."""
        made = cls(model, directory / "original", directory / "out")
        model.export(made.original)
        made.report = rewrite(
            made.original,
            made.out,
            [Selection("freeze", selector) for selector in model.freeze],
            loss=LOSS,
            optimizer=model.optimizers[0],
            endpoint=model.endpoint,
            forward_endpoint="serve",
        )
        return made

    @cached_property
    def initial(self) -> dict[str, Array]:
        """The value of every variable before any training, by name."""
        return {name: v.numpy() for name, v in self._variables.items()}

    @cached_property
    def trainable(self) -> set[str]:
        """The names of those that are trainable."""
        return {name for name, variable in self._variables.items() if variable.trainable}

    @cached_property
    def _variables(self) -> dict[str, Any]:
        return variables_of(tf.saved_model.load(str(self.original)))

    @cached_property
    def frozen(self) -> dict[str, Array]:
        """Which elements are frozen, of each variable of which some are: not from the plan, but from the zoo."""
        masks = {name: self.model.frozen_elements(name, value) for name, value in self.initial.items()}
        return {name: mask for name, mask in masks.items() if mask.any()}


def variables_of(loaded: Any) -> dict[str, Any]:
    """The variables that the signatures of a loaded SavedModel use, by name; Keras exports hold each twice."""
    captured = {id(tensor) for function in loaded.signatures.values() for tensor in function.captured_inputs}
    return {v.name.removesuffix(":0"): v for v in loaded.variables if id(v.handle) in captured}
