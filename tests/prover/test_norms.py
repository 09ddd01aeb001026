"""Norms in a training step: which ones leave frozen elements out, and which variables are slots for all of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from graphfreeze.prover import prove
from graphfreeze.prover.closure import Closure
from graphfreeze.prover.ends import Ends, NormEnd
from graphfreeze.prover.graph_view import GraphView
from graphfreeze.prover.handles import Context, Contexts
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan, rewrite
from tests.prover.steps import Step, momentum

NORMS = {"Sum", "Mean", "L2Loss"}


def found(made: Callable[[Any, Any, Any], Any], path: Path, names: Sequence[str]) -> tuple[set[str], list[str]]:
    """Rewrite and prove a step: the slots of all targeted variables, and the variables of the norms."""
    tf.saved_model.save(Step(made), str(path / "in"))
    plan = freeze_plan(path / "in", names, "select")
    rewrite(path / "in", path / "out", plan)
    slots, norms = set[str](), []
    for entry in prove(path / "in", path / "out", plan)["variables"]:
        for update in entry["masked_updates"]:
            if update["operation"] in NORMS:
                norms.append(update["of"])
            elif update["of"] not in names:
                slots.add(update["of"])
    return slots, sorted(norms)


def scaled(norm: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The momentum, scaled by what is made of it and of the module."""

    def made(m: Any, g: Any, x: Any) -> Any:
        s = momentum(m, g)
        m.v.assign_sub(s * norm(m, s))
        return tf.reduce_sum(x)

    return made


def by_way_of_another(m: Any, g: Any, x: Any) -> Any:
    s = momentum(m, g)
    m.r.assign(m.r * 0.5 + tf.reduce_mean(tf.square(s) + 1e-3, axis=-1))
    m.v.assign_sub(s / tf.reduce_sum(m.r))
    return tf.reduce_sum(x)


def with_decay(m: Any, g: Any, x: Any) -> Any:
    update = momentum(m, g) + 0.01 * m.v
    m.v.assign_sub(update / tf.norm(update))
    return tf.reduce_sum(x)


def accumulated(m: Any, g: Any, x: Any) -> Any:
    def use() -> Any:
        total = m.s + g
        m.v.assign_sub(tf.clip_by_norm(total, 1.0))
        m.s.assign(tf.zeros_like(m.s))
        return True

    def keep() -> Any:
        m.s.assign_add(g)
        return False

    return tf.cond(tf.reduce_sum(x) > 0, use, keep)


HELD: dict[str, Callable[[Any, Any, Any], Any]] = {
    "squares": scaled(lambda m, s: tf.reduce_sum(tf.square(s))),
    "powers": scaled(lambda m, s: tf.reduce_sum(tf.pow(s, 2.0), axis=0, keepdims=True)),
    "cast": scaled(lambda m, s: tf.reduce_mean(tf.pow(s, tf.cast(tf.identity(2), tf.float32)))),
    "products": scaled(lambda m, s: tf.norm(s)),
    "loss": scaled(lambda m, s: tf.nn.l2_loss(s)),
    "rows": scaled(lambda m, s: 1.0 / tf.sqrt(tf.reduce_mean(tf.square(s) + 1e-3, axis=-1))),
    "by way of another": by_way_of_another,
    "decay": with_decay,
    "accumulated": accumulated,
}


@pytest.mark.parametrize("name", HELD)
def test_slots_may_end_in_norms(tmp_path: Path, name: str) -> None:
    assert found(HELD[name], tmp_path, ["v"]) == ({"s"}, ["v"])
    # Whatever the slot holds at frozen elements, nothing else moves by it.
    (frozen,) = freeze_plan(tmp_path / "in", ["v"], "select").variables
    one, other = (tf.saved_model.load(str(tmp_path / "out")) for _ in range(2))
    other.s.assign(tf.where(frozen.full_mask, other.s, other.s + 0.5))
    x = tf.reshape(tf.range(1.0, 10.0), [3, 3]) / 10.0
    for scale in (1.0, -0.5, 1.0):
        assert one.train(x * scale).numpy() == other.train(x * scale).numpy()
    assert (one.v.numpy() != tf.saved_model.load(str(tmp_path / "in")).v.numpy()).any()
    for name in ("v", "r"):
        assert getattr(one, name).numpy().tobytes() == getattr(other, name).numpy().tobytes(), name
    assert (one.s.numpy() == other.s.numpy()).tolist() == frozen.full_mask.tolist()


def given_out(m: Any, g: Any, x: Any) -> Any:
    s = momentum(m, g)
    m.v.assign_sub(s)
    return tf.norm(s)


def of_an_argument(m: Any, g: Any, x: Any) -> Any:
    s = momentum(m, g)
    m.v.assign_sub((s + x) * tf.reduce_sum(tf.square(x) * s))
    return tf.reduce_sum(x)


def averaged(m: Any, g: Any, x: Any) -> Any:
    """The slot would be the weight that trains, of which the variable is a slow average."""
    with tf.GradientTape() as tape:
        tape.watch(m.s)
        loss = tf.reduce_sum(tf.matmul(x, m.s) ** 2) + tf.nn.l2_loss(m.s)
    m.s.assign_sub(tf.clip_by_norm(tape.gradient(loss, m.s), 1.0) + 0.01 * m.s)
    m.v.assign(m.v * 0.9 + m.s * 0.1)
    return loss


def averaged_scale(m: Any, g: Any, x: Any) -> Any:
    """The same of a weight that is applied element by element, and whose loss decides about steps."""
    out = x * m.s
    loss = tf.reduce_mean(out**2)
    m.s.assign_sub(tf.where(loss < 10.0, x * out, 0.0))
    m.v.assign(m.v * 0.9 + m.s * 0.1)
    return out


def regularised(m: Any, g: Any, x: Any) -> Any:
    loss = tf.nn.l2_loss(m.s) + tf.nn.l2_loss(m.v)
    m.s.assign_sub(0.1 * m.s + 0.01 * m.s * loss)
    m.v.assign_sub(g * loss)
    return tf.reduce_sum(x)


def of_two(m: Any, g: Any, x: Any) -> Any:
    s, t = momentum(m, g), momentum(m, g, "t")
    norm = tf.sqrt(tf.reduce_sum(tf.square(s) + tf.square(t)))
    m.v.assign_sub(s / norm)
    m.u.assign_sub(t / norm)
    return tf.reduce_sum(x)


OTHERS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "no squares": scaled(lambda m, s: tf.reduce_sum(s)),
    "magnitudes": scaled(lambda m, s: tf.reduce_mean(tf.abs(s))),
    "cubes": scaled(lambda m, s: tf.reduce_sum(tf.pow(s, 3.0))),
    "some power": scaled(lambda m, s: tf.reduce_sum(tf.pow(s, m.r[0]))),
    "two reads": scaled(lambda m, s: tf.reduce_sum(m.s.read_value() * m.s.read_value())),
    "largest": scaled(lambda m, s: tf.reduce_max(tf.square(s))),
    "moved": scaled(lambda m, s: tf.reduce_sum(tf.square(tf.reverse(s, [0])))),
    "moved squares": scaled(lambda m, s: tf.reduce_sum(tf.reverse(tf.square(s), [0]))),
    "spread": scaled(lambda m, s: tf.reduce_sum(tf.square(s * tf.ones([2, 1, 1])))),
    "with the variable": scaled(lambda m, s: tf.reduce_sum(tf.square(m.v) * s)),
    "with another": scaled(lambda m, s: tf.reduce_sum(tf.square(s) + tf.square(m.t))),
    "given out": given_out,
    "an argument": of_an_argument,
    "averaged": averaged,
    "averaged scale": averaged_scale,
    "regularised": regularised,
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_sums_make_no_slot(tmp_path: Path, name: str) -> None:
    assert found(OTHERS[name], tmp_path, ["v"]) == (set(), [])


def test_the_norm_of_two_variables_belongs_to_neither(tmp_path: Path) -> None:
    assert found(of_two, tmp_path, ["u", "v"]) == (set(), [])


def test_a_norm_is_masked_with_the_mask_of_the_other_variable_of_its_shape(tmp_path: Path) -> None:
    def made(m: Any, g: Any, x: Any) -> Any:
        for variable, slot in ((m.v, "s"), (m.u, "t")):
            update = momentum(m, g, slot)
            variable.assign_sub(update / tf.norm(update))
        return tf.reduce_sum(x)

    assert found(made, tmp_path, ["u", "v"]) == ({"s", "t"}, ["u", "v"])
    plan = freeze_plan(tmp_path / "in", ["u", "v"], "select")
    model = Mutant.copy(tmp_path / "in", tmp_path / "out", plan, tmp_path)
    nodes = {n.name: n for f in model.meta.graph_def.library.function for n in f.node_def}
    norms = [n for n in nodes.values() if n.op == "Sum" and f"{n.name}/graphfreeze/keep" in nodes]
    one, other = (nodes[f"{norm.name}/graphfreeze/keep"] for norm in norms)
    one.input[0], other.input[0] = other.input[0], one.input[0]
    model.failure("expected the plan's mask, found another one")


def test_what_is_computed_without_a_slot_has_no_value_in_its_norm(tmp_path: Path) -> None:
    """A gradient counts, weight decay beside it does not: it has a variable's value, and no slot's."""

    def made(decay: float) -> Callable[[Any, Any, Any], Any]:
        def step(m: Any, g: Any, x: Any) -> Any:
            update = g + decay * m.v if decay else g
            m.v.assign_sub(update / tf.norm(update))
            return tf.reduce_sum(x)

        return step

    assert found(made(0.0), tmp_path / "plain", ["v"]) == (set(), ["v"])
    assert found(made(0.1), tmp_path / "decay", ["v"]) == (set(), [])


def test_what_belongs_to_a_variable_by_no_slot_of_it_does_not_count() -> None:
    """A tracker that the variable is not reached from is no slot; so neither is what ends in its norm."""
    norm = NormEnd(Context(GraphView("f", {}, {}, (), {}), {}, Contexts({})), "sum")
    ends: dict[int, Ends] = {2: frozenset({1, norm}), 3: frozenset({3}), 4: frozenset({1, 4}), 5: None}
    assert Closure({1: {2, 3, 4, 5}}, ends, {1: set()}, lambda _, owner, slots: 3 in slots).slots_of(1) == {4}
    assert Closure({1: {2, 3, 4, 5}}, ends, {1: {5}}, lambda _, owner, slots: 5 in slots).slots_of(1) == {2, 4, 5}
