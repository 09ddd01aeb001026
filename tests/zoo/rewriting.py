"""A model of the zoo, exported by Keras and rewritten, and what an independent look at it says is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from graphfreeze import Selection, rewrite
from tests.zoo.data import Array
from tests.zoo.models import LOSS, ZooModel

__all__ = ["Movement", "Rewritten", "same_bits", "variables_of"]


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
            checks=model.checks,
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


def same_bits(a: Array, b: Array) -> Array:
    """Where two arrays of one shape and dtype have the same bits."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    unsigned = f"u{a.dtype.itemsize}"
    return np.asarray(np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned)).reshape(a.shape)


class Movement:
    """Follows the values of variables while they train."""

    def __init__(self, before: Mapping[str, Array]) -> None:
        self._before = before
        self._last = before
        self._moved: dict[str, Array] = {}
        self._updates: dict[str, Array] = {}

    def note(self, after: Mapping[str, Array], updates: Mapping[str, Array]) -> None:
        """Take down a step.

        Args:
            after: The value of each variable after the step.
            updates: About how large the update of each element was, by the formula of the optimizer.
        """
        self._last = after
        for name, update in updates.items():
            self._moved[name] = self._moved.get(name, np.False_) | ~same_bits(self._before[name], after[name])
            self._updates[name] = np.maximum(self._updates.get(name, 0), update)

    def check(self, frozen: Mapping[str, Array]) -> None:
        """Every frozen element has kept its bits, and every other one with an update that counts has moved.

        Adding to a number less than half the distance to the next number changes nothing; and of a gradient that is new
        an optimizer with a running mean takes a tenth at first, beside what is left of older ones.
        """
        for name, mask in frozen.items():
            assert same_bits(self._before[name], self._last[name])[mask].all(), name
        assert any(moved.any() for moved in self._moved.values())
        for name, update in self._updates.items():
            counts = update > 256 * np.spacing(np.abs(self._before[name]))
            stuck = counts & ~self._moved[name] & ~frozen.get(name, np.False_)
            assert not stuck.any(), (name, np.count_nonzero(stuck))
