"""Norms of an embedding's rows as they are: which ones leave frozen elements out, and which slots there are then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.prover import prove
from tests.passes.training_models import OPTIMIZERS, VARIABLES, save
from tests.prover.rewriting import freeze_plan, rewrite
from tests.prover.row_steps import (
    Made,
    by_the_norm,
    found,
    kept,
    of_two,
    other_rows,
    proven,
    scatter,
    through_a_wider_copy,
)

# -- what counts


@pytest.mark.parametrize(
    ("name", "operations"),
    [
        ("clipping by the global norm", ["L2Loss"]),
        ("clipping of each", ["Sum"]),
        ("tf_keras clipping", ["L2Loss"]),
        ("Keras 3 clipping of each", ["Sum"]),
        ("Keras 3 Adafactor", ["Mean", "Mean", "Sum"]),
    ],
)
def test_norms_of_sparse_gradients_are_proven(tmp_path: Path, name: str, operations: list[str]) -> None:
    original = save(OPTIMIZERS[name](), tmp_path / "in")
    plan = freeze_plan(original, VARIABLES, "blend")
    rewritten = rewrite(original, tmp_path / "out", plan)
    _, norms = found(prove(original, rewritten, plan))
    assert [operation for of, operation in norms if of == "e"] == operations
    assert {of for of, _ in norms} == set(VARIABLES)


def with_a_slot(m: Any, g: Any, i: Any, j: Any) -> None:
    rows = kept(m, i, g)
    scatter(m.e, rows / (tf.nn.l2_loss(rows) + tf.reduce_sum(tf.reduce_mean(rows**2, axis=0))), i)


def of_distinct_rows(m: Any, g: Any, i: Any, j: Any) -> None:
    clipped = g / tf.norm(g)
    distinct, at = tf.unique(i)
    scatter(m.e, tf.math.unsorted_segment_sum(clipped, at, tf.size(distinct)), distinct)


def after_distinct_rows(m: Any, g: Any, i: Any, j: Any) -> None:
    distinct, at = tf.unique(i)
    g = tf.math.unsorted_segment_sum(g, at, tf.size(distinct))
    scatter(m.e, g / tf.norm(g), distinct)


def into_a_whole(m: Any, g: Any, i: Any, j: Any) -> None:
    m.e.assign_sub(tf.math.unsorted_segment_sum(g / tf.norm(g), i, 5))


HELD: dict[str, tuple[Made, set[str], list[tuple[str, str]]]] = {
    "gradient": (by_the_norm, set(), [("e", "Sum")]),
    "slot": (with_a_slot, {"s"}, [("e", "L2Loss"), ("e", "Mean")]),
    "wider": (through_a_wider_copy, {"s"}, [("e", "Sum")]),
    "distinct": (of_distinct_rows, set(), [("e", "Sum")]),
    "after distinct": (after_distinct_rows, set(), [("e", "Sum")]),
    "into a whole": (into_a_whole, set(), [("e", "Sum")]),
}


@pytest.mark.parametrize("name", HELD)
def test_frozen_elements_have_no_part_in_norms_of_rows(tmp_path: Path, name: str) -> None:
    made, slots, norms = HELD[name]
    assert proven(made, tmp_path, "e") == (slots, norms)
    (frozen,) = freeze_plan(tmp_path / "in", ["e"], "select").variables
    one, other = (tf.saved_model.load(str(tmp_path / "out")) for _ in range(2))
    if slots:
        other.s.assign(tf.where(frozen.full_mask, other.s, other.s + 0.5))
    # Of which gradient the frozen element is one does not matter, nor what a slot holds there.
    index, column = (int(k[0]) for k in np.nonzero(~frozen.full_mask))
    mask = frozen.full_mask[index]
    assert mask.any()
    x = tf.constant([[0.1, 0.2, 0.4]])
    for _ in range(2):
        one.train(x, [index], [index])
        other.train(x, [index], [index])
    before = tf.saved_model.load(str(tmp_path / "in")).e.numpy()
    moved = one.e.numpy()[index] - before[index]
    assert (moved[mask] != 0).all() and moved[column] == 0
    assert one.e.numpy().tobytes() == other.e.numpy().tobytes()
    if name == "gradient":
        np.testing.assert_allclose(-moved[mask], 2 / np.sqrt(mask.sum()), rtol=1e-5)


def test_each_of_two_has_a_norm_at_its_own_indices(tmp_path: Path) -> None:
    assert proven(of_two, tmp_path, "e", "f") == (set(), [("e", "L2Loss"), ("f", "L2Loss")])


# -- what does not


def at_other_indices(m: Any, g: Any, i: Any, j: Any) -> None:
    scatter(m.e, g / tf.norm(g), i)
    scatter(m.e, g, j)


def slot_rows_at_other_indices(m: Any, g: Any, i: Any, j: Any) -> None:
    m.s.assign(m.s * 0.9)
    scatter(m.e, g / tf.nn.l2_loss(g * tf.gather(m.s.read_value(), j)), i)


def slot_at_other_indices(m: Any, g: Any, i: Any, j: Any) -> None:
    rows = kept(m, i, g)
    scatter(m.e, rows / tf.nn.l2_loss(tf.gather(m.s.read_value(), j)), i)


def product(m: Any, g: Any, i: Any, j: Any) -> None:
    m.s.assign(m.s * 0.9)
    rows = g * tf.gather(m.s.read_value(), j)
    scatter(m.e, rows / tf.norm(rows), i)


def with_another(m: Any, g: Any, i: Any, j: Any) -> None:
    """One norm of what ends in two variables."""
    other = other_rows(j)
    norm = tf.reduce_sum(tf.square(g) + tf.square(other))
    scatter(m.e, g / norm, i)
    scatter(m.f, other / norm, i)


def with_a_whole(m: Any, g: Any, i: Any, j: Any) -> None:
    """Rows beside others' squares that were brought to their places."""
    other = other_rows(j)
    norm = tf.reduce_sum(tf.square(g) + tf.math.unsorted_segment_sum(tf.square(other), i, 5))
    scatter(m.e, g / norm, i)
    scatter(m.e, other / norm, i)


def in_both_places(m: Any, g: Any, i: Any, j: Any) -> None:
    """Rows of a slot, as they are beside the same in their places: it has no mask that is right for both."""
    rows = kept(m, i, g)
    norm = tf.reduce_sum(tf.square(rows) + tf.math.unsorted_segment_sum(tf.square(rows), i, 5))
    scatter(m.e, rows / norm, i)


def distinct_of_others(m: Any, g: Any, i: Any, j: Any) -> None:
    distinct, at = tf.unique(j)
    scatter(m.e, tf.math.unsorted_segment_sum(g / tf.norm(g), at, tf.size(distinct)), i)


def wrong_result(m: Any, g: Any, i: Any, j: Any) -> None:
    distinct, _ = tf.unique(i)
    scatter(m.e, tf.math.unsorted_segment_sum(g / tf.norm(g), distinct, tf.size(distinct)), distinct)


def decayed(m: Any, g: Any, i: Any, j: Any) -> None:
    rows = g + 0.1 * tf.raw_ops.ResourceGather(resource=m.e.handle, indices=i, dtype=tf.float32)
    scatter(m.e, rows / tf.norm(rows), i)


def without_effect(m: Any, g: Any, i: Any, j: Any) -> None:
    scatter(m.e, g, i)
    m.b.assign(m.b + tf.norm(g))


def moved(m: Any, g: Any, i: Any, j: Any) -> None:
    scatter(m.e, g / tf.reduce_sum(tf.reverse(tf.square(g), [0])), i)


def spread(m: Any, g: Any, i: Any, j: Any) -> None:
    """One number for all elements of a row, of which some are frozen."""
    scale = g[:, :1]
    scatter(m.e, g * scale / tf.nn.l2_loss(scale), i)


OTHERS: dict[str, Made] = {
    "at other indices": at_other_indices,
    "slot rows at other indices": slot_rows_at_other_indices,
    "slot at other indices": slot_at_other_indices,
    "with a whole": with_a_whole,
    "distinct of others": distinct_of_others,
    "wrong result": wrong_result,
    "decayed": decayed,
    "without effect": without_effect,
    "moved": moved,
    "spread": spread,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_of_rows_make_neither_slot_nor_norm(tmp_path: Path, name: str) -> None:
    assert proven(OTHERS[name], tmp_path, "e") == (set(), [])


def test_rows_at_other_indices_in_a_product_make_no_slot(tmp_path: Path) -> None:
    """The product ends in the variable's rows at the gradient's indices, and so does its norm."""
    assert proven(product, tmp_path, "e") == (set(), [("e", "Sum")])


def test_rows_beside_the_same_in_their_places_make_no_slot(tmp_path: Path) -> None:
    assert proven(in_both_places, tmp_path, "e")[0] == set()


def test_the_norm_of_rows_of_two_belongs_to_neither(tmp_path: Path) -> None:
    assert proven(with_another, tmp_path, "e", "f") == (set(), [])
