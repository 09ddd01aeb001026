"""Handles that functions return, conditionals choose between, and loops hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.errors import UnsupportedVariableUseError
from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel

from .harness import call_all, gradients, make_plan, merge
from .models import Sample

X = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
SPEC = tf.TensorSpec([None, 2], tf.float32)


def _read(handle: Any) -> Any:
    return tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32), [2, 2])


@tf.function
def _same(handle: Any) -> Any:
    return tf.identity(handle)


@tf.function
def _same_twice(handle: Any) -> Any:
    return _same(_same(handle))


class Handles(tf.Module):
    """Two variables whose handles travel before they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.a = tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="a")
        self.b = tf.Variable([[5.0, 6.0], [7.0, 8.0]], name="b")

    @tf.function(input_signature=[SPEC])
    def returned(self, x: Any) -> Any:
        return x @ _read(_same_twice(self.a.handle)) @ _read(_same(self.b.handle))

    @tf.function(input_signature=[SPEC])
    def agreed(self, x: Any) -> Any:
        return x @ _read(tf.cond(tf.reduce_sum(x) > 0, lambda: self.a.handle, lambda: _same(self.a.handle)))

    @tf.function(input_signature=[SPEC])
    def looped(self, x: Any) -> Any:
        _, y, _ = tf.while_loop(lambda i, y, h: i < 2, lambda i, y, h: (i + 1, y @ _read(h), h), [0, x, self.b.handle])
        return y


class Chosen(Handles):
    """Besides, one of two handles is chosen at run time."""

    @tf.function(input_signature=[SPEC])
    def chosen(self, x: Any) -> Any:
        return x @ _read(tf.cond(tf.reduce_sum(x) > 0, lambda: self.a.handle, lambda: self.b.handle))


class Swapped(Handles):
    """Besides, a loop swaps two handles."""

    @tf.function(input_signature=[SPEC])
    def swapped(self, x: Any) -> Any:
        start = [0, x, self.a.handle, self.b.handle]
        _, y, _, _ = tf.while_loop(lambda i, y, g, h: i < 3, lambda i, y, g, h: (i + 1, y @ _read(g), h, g), start)
        return y


def save(module: tf.Module, path: Path) -> SavedModel:
    tf.saved_model.save(module, str(path))
    return SavedModel.load(path)


@pytest.mark.parametrize("targets", [("a",), ("b",), ("a", "b")])
def test_travelling_handles_are_followed(tmp_path: Path, targets: tuple[str, ...]) -> None:
    model = save(Handles(), tmp_path / "in")
    plan = make_plan(model, targets, "blend")
    write(freeze_reads(model, plan), tmp_path / "out")
    original, rewritten = tf.saved_model.load(str(tmp_path / "in")), tf.saved_model.load(str(tmp_path / "out"))
    merge(original, plan)
    calls = {
        "returned": lambda m: m.returned(X),
        "agreed": lambda m: m.agreed(X),
        "agreed otherwise": lambda m: m.agreed(-X),
        "looped": lambda m: m.looped(X),
    }
    sample = Sample(lambda path: None, calls, (), {})
    expected, found = call_all(original, sample), call_all(rewritten, sample)
    for key in expected:
        assert expected[key].tobytes() == found[key].tobytes(), key
    before, after = (gradients(loaded, sample, ("a", "b"), ["looped"]) for loaded in (original, rewritten))
    if "b" in targets:
        mask = next(entry.full_mask for entry in plan.variables if entry.variable.name == "b")
        assert np.array_equal(after["looped"][1], np.where(mask, before["looped"][1], 0))


@pytest.mark.parametrize(("module", "operation"), [(Chosen, "If"), (Swapped, "While")])
def test_handles_that_change_are_refused(tmp_path: Path, module: type[Handles], operation: str) -> None:
    model = save(module(), tmp_path / "in")
    with pytest.raises(UnsupportedVariableUseError, match=rf"is taken by (Stateless)?{operation} "):
        freeze_reads(model, make_plan(model, ("a",), "blend"))
