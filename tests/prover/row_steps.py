"""Steps that are given the rows of a sparse gradient, and what is proven of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from graphfreeze.prover import prove
from tests.prover.rewriting import freeze_plan, rewrite

__all__ = [
    "Made",
    "Step",
    "by_the_norm",
    "found",
    "kept",
    "of_two",
    "other_rows",
    "proven",
    "scatter",
    "through_a_wider_copy",
]

NORMS = {"Sum", "Mean", "L2Loss"}
ROWS = tf.TensorSpec([None], tf.int32)
Made = Callable[[Any, Any, Any, Any], object]


class Step(tf.Module):
    """A step that is given rows of a gradient, and two vectors of indices.

    Args:
        made: Updates the module's variables, given these.
    """

    def __init__(self, made: Made) -> None:
        super().__init__()
        for name in ("e", "f"):
            setattr(self, name, tf.Variable(tf.reshape(tf.range(15.0), [5, 3]), name=name))
        for name in ("s", "t"):
            setattr(self, name, tf.Variable(tf.fill([5, 3], 0.5), trainable=False, name=name))
        self.b = tf.Variable(tf.ones([3]), name="b")
        self._made = made

    @tf.function(input_signature=[tf.TensorSpec([None, 3]), ROWS, ROWS])
    def train(self, x: Any, i: Any, j: Any) -> Any:
        self._made(self, tf.matmul(x, tf.ones([3, 3])), i, j)
        return tf.reduce_sum(x)


def found(evidence: dict[str, Any]) -> tuple[set[str], list[tuple[str, str]]]:
    """The slots that were proven, and the variables of the norms with their operations."""
    slots, norms = set[str](), []
    for entry in evidence["variables"]:
        for update in entry["masked_updates"]:
            if update["operation"] in NORMS:
                norms.append((update["of"], update["operation"]))
            elif update["of"] != entry["name"]:
                slots.add(update["of"])
    return slots, sorted(norms)


def proven(made: Made, path: Path, *names: str) -> tuple[set[str], list[tuple[str, str]]]:
    tf.saved_model.save(Step(made), str(path / "in"))
    plan = freeze_plan(path / "in", names, "select")
    rewrite(path / "in", path / "out", plan)
    return found(prove(path / "in", path / "out", plan))


def scatter(variable: Any, rows: Any, at: Any) -> None:
    variable.scatter_sub(tf.IndexedSlices(rows, at))


def other_rows(j: Any) -> Any:
    """Rows that have nothing to do with the gradient's."""
    return tf.cast(tf.stack([j, j, j], axis=1), tf.float32) + 1.0


def kept(m: Any, at: Any, g: Any) -> Any:
    """Rows of a momentum, which rows of a gradient were added to."""
    m.s.assign(m.s * 0.9)
    m.s.scatter_add(tf.IndexedSlices(g, at))
    return tf.gather(m.s.read_value(), at)


def by_the_norm(m: Any, g: Any, i: Any, j: Any) -> None:
    scatter(m.e, g / tf.norm(g), i)


def through_a_wider_copy(m: Any, g: Any, i: Any, j: Any) -> None:
    rows = tf.gather(m.s.read_value(), tf.cast(i, tf.int64)) * 0.9 + g
    m.s.scatter_update(tf.IndexedSlices(rows, tf.identity(i)))
    scatter(m.e, rows / tf.norm(rows), i)


def of_two(m: Any, g: Any, i: Any, j: Any) -> None:
    clipped, _ = tf.clip_by_global_norm([tf.IndexedSlices(g, i), tf.IndexedSlices(other_rows(j), j)], 0.1)
    m.e.scatter_sub(clipped[0])
    m.f.scatter_sub(clipped[1])
