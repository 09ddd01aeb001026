"""Which variables are slots whose values pass through gathers, sums of rows, branches, and identities of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.write import write
from graphfreeze.prover import prove
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection.plan import FreezePlan

from .harness import frozen

ops = tf.raw_ops


def divided(flags: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """Rows divided by those of a slot, unless it has zeros, as Keras 3 does it."""

    def apply(slot: Any, i: Any) -> Any:
        tested = flags(slot)
        whole = tf.cond(tf.reduce_any(tested), lambda: slot[::-1], lambda: slot + tf.cast(tested, tf.float32)[0] * 0.0)
        return tf.math.unsorted_segment_sum(tf.gather(whole, i), i, 3)

    return apply


def rows_divided(slot: Any, i: Any) -> Any:
    tested = tf.reduce_any(tf.equal(slot, 0.0) | tf.math.is_nan(slot), axis=1)
    rows, at = tf.cond(
        tf.reduce_any(tested),
        lambda: (1.0 / slot, tf.range(3) + tf.cast(tested, tf.int32) * 0),
        lambda: (1.0 / tf.gather(slot, i), i),
    )
    return tf.math.unsorted_segment_sum(rows, at, 3)


def ones_tested(slot: Any, i: Any) -> Any:
    tested = tf.reduce_any(tf.equal(slot, 1.0) | tf.math.is_nan(slot), axis=1)
    return tf.cond(tf.reduce_any(tested), lambda: slot * 2.0, lambda: slot)


def branched(slot: Any, i: Any) -> Any:
    return tf.cond(tf.size(i) > 2, lambda: slot * 2.0, lambda: slot)


def rows_branched(slot: Any, i: Any) -> Any:
    rows = tf.gather(slot, i)
    rows, at = tf.cond(tf.size(i) > 2, lambda: (rows * 2.0, tf.identity(i)), lambda: (rows, i))
    return tf.math.unsorted_segment_sum(rows, at, 3)


def rows_moved_in_a_branch(slot: Any, i: Any) -> Any:
    rows = tf.gather(slot, i)
    rows, at = tf.cond(tf.size(i) > 2, lambda: (rows * 2.0, i), lambda: (rows, 2 - i))
    return tf.math.unsorted_segment_sum(rows, at, 3)


SLOTS: dict[str, Callable[[Any, Any], Any]] = {
    "summed": lambda slot, i: tf.math.unsorted_segment_sum(tf.gather(slot, i), i, 3),
    "identities": lambda slot, i: tf.identity_n([tf.ones([3, 3]), slot])[1],
    "branched": branched,
    "rows_branched": rows_branched,
    "rows_divided": rows_divided,
}
OTHERS: dict[str, Callable[[Any, Any], Any]] = {
    "shifted": lambda slot, i: tf.math.unsorted_segment_sum(tf.gather(slot, i), (i + 1) % 3, 3),
    "columns": lambda slot, i: tf.gather(slot, [2, 1, 0], axis=1),
    "rows_as_columns": lambda slot, i: tf.math.unsorted_segment_sum(tf.gather(slot, i % 3, axis=1), i % 3, 3),
    "batched": lambda slot, i: tf.gather(slot, [[2, 1, 0]] * 3, batch_dims=1),
    "spread": lambda slot, i: tf.ones([3, 3]) * tf.math.unsorted_segment_sum(tf.gather(slot, i * 0), i * 0, 1),
    "of_unknown_height": lambda slot, i: tf.math.unsorted_segment_sum(tf.gather(slot, i), i, tf.size(i)),
    "reversed": lambda slot, i: tf.cond(tf.size(i) > 2, lambda: slot[::-1], lambda: slot),
    "deciding": lambda slot, i: tf.cond(tf.reduce_sum(slot) > 0, lambda: slot * 2.0, lambda: slot),
    "ones_tested": ones_tested,
    "rows_moved": rows_moved_in_a_branch,
    "tests_used": divided(lambda slot: tf.reduce_any(tf.equal(slot, 0.0) | tf.math.is_nan(slot), axis=1)),
    "indexing": lambda slot, i: tf.gather(tf.eye(3), tf.cast(slot[:, 0], tf.int32)),
}


class Step(tf.Module):
    """A variable that is updated with something made of another one of its shape."""

    def __init__(self, made: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.v = tf.Variable(tf.reshape(tf.range(9.0), [3, 3]), name="v")
        self.slot = tf.Variable(tf.fill([3, 3], 0.5), trainable=False, name="slot")
        self._made = made

    @tf.function(input_signature=[tf.TensorSpec([3, 3]), tf.TensorSpec([None], tf.int32)])
    def train(self, x: Any, i: Any) -> Any:
        self.slot.assign(self.slot * 0.9 + x)
        self.v.assign_sub(self._made(tf.convert_to_tensor(self.slot), i))
        return tf.reduce_sum(x)


@pytest.mark.parametrize("name", [*SLOTS, *OTHERS])
def test_only_what_stays_in_its_place_makes_a_slot(tmp_path: Path, name: str) -> None:
    tf.saved_model.save(Step((SLOTS | OTHERS)[name]), str(tmp_path / "in"))
    model = SavedModel.load(tmp_path / "in")
    mask = np.array([[True, False, True], [False, True, True], [True, True, True]])
    value = model.read(next(v for v in model.variables if v.name == "v"))
    plan = FreezePlan((frozen(model, "v", mask, value, "blend"),))
    rewritten = freeze_reads(model, plan)
    assert {update.name for update in rewritten.updates} == ({"v", "slot"} if name in SLOTS else {"v"})
    write(rewritten, tmp_path / "out")
    prove(tmp_path / "in", tmp_path / "out", plan)
    loaded, original = (tf.saved_model.load(str(tmp_path / part)) for part in ("out", "in"))
    x, i = tf.ones([3, 3]) * [1.0, 2.0, 3.0], [0, 2, 2]
    loaded.train(x, i)
    original.train(x, i)
    for held in (loaded.v, loaded.slot) if name in SLOTS else (loaded.v,):
        assert (held.numpy() == (value if held is loaded.v else 0.5))[~mask].all()
    # The slot's frozen elements have no part in anything else.
    assert loaded.v.numpy()[mask].tobytes() == original.v.numpy()[mask].tobytes()
    assert loaded.slot.numpy()[mask].tobytes() == original.slot.numpy()[mask].tobytes()
