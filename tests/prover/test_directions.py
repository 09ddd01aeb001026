"""Directions, as Muon computes them: with what they begin, and which slots there are then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.prover import prove
from tests.prover.completing import completed
from tests.prover.finding import find, find_in_step
from tests.prover.rewriting import freeze_plan
from tests.prover.steps import Made, momentum

SHAPES = {"tall": (5, 3), "wide": (3, 5), "square": (4, 4)}


class Trained(tf.Module):
    """A matrix that Muon trains.

    Args:
        optimizer: The optimizer.
        shape: The shape of the matrix.
    """

    def __init__(self, optimizer: Any, shape: tuple[int, int]) -> None:
        super().__init__()
        numbers = np.random.default_rng(1)
        self.w = keras.Variable(numbers.normal(size=shape).astype(np.float32), name="w")
        self.x = tf.constant(numbers.normal(size=(6, shape[0])), tf.float32)
        self.optimizer = optimizer
        optimizer.build([self.w])
        self.train = tf.function(self._train, input_signature=[])

    def _train(self) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.tanh(tf.matmul(self.x, self.w.value)) ** 2)
        self.optimizer.apply([tape.gradient(loss, self.w.value)], [self.w])
        return loss


def muon(path: Path, shape: str, scale: bool = False, **options: Any) -> Path:
    optimizer = keras.optimizers.Muon(0.1, **options)
    module = Trained(keras.optimizers.LossScaleOptimizer(optimizer) if scale else optimizer, SHAPES[shape])
    for _ in range(2):
        module.train()
    tf.saved_model.save(module, str(path))
    return path


MUONS: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "tall": ({"shape": "tall"}, [], ["AddV2"]),
    # The norm is taken of what is then divided by it, and that is what is mixed.
    "wide": ({"shape": "wide"}, ["Sum"], ["RealDiv"]),
    "square": ({"shape": "square"}, ["Sum"], ["RealDiv"]),
    "tall, the momentum itself": ({"shape": "tall", "nesterov": False}, [], ["ReadVariableOp"]),
    "clipped": ({"shape": "tall", "global_clipnorm": 0.1}, ["Sum"], ["AddV2"]),
    "without decay": ({"shape": "wide", "weight_decay": None, "rms_rate": None}, ["Sum"], ["RealDiv"]),
    "scaled": ({"shape": "tall", "scale": True, "clipnorm": 0.1}, ["Sum"], ["AddV2"]),
}


@pytest.mark.parametrize("name", MUONS)
def test_the_direction_of_muon_begins_with_its_momentum(tmp_path: Path, name: str) -> None:
    options, norms, directions = MUONS[name]
    original = muon(tmp_path / "in", **options)
    found = find(original, ["w"])
    assert found.norms == [("w", operation) for operation in norms]
    assert found.directions == [("w", operation) for operation in directions]
    assert {k: len(v) for k, v in found.slots.items()} == {"w": 1}


@pytest.mark.parametrize("shape", ["wide", "square"])
def test_a_momentum_may_be_read_for_its_norm_alone(tmp_path: Path, shape: str) -> None:
    """Without Nesterov's step, Keras reads it once for the norm, and once more for what it divides by that."""
    found = find(muon(tmp_path / "in", shape, nesterov=False), ["w"])
    assert (list(map(len, found.slots.values())), len(found.norms), len(found.directions)) == ([1], 1, 1)


@pytest.mark.parametrize("name", MUONS)
@pytest.mark.parametrize("shared", [True, False])
def test_frozen_elements_have_no_part_in_a_masked_direction(tmp_path: Path, name: str, shared: bool) -> None:
    options, norms, directions = MUONS[name]
    original = muon(tmp_path / "in", **options)
    plan = freeze_plan(original, ["w"], "select")
    completed(original, tmp_path / "out", plan, shared=shared)
    (entry,) = prove(original, tmp_path / "out", plan)["variables"]
    listed = [u["operation"] for u in entry["masked_updates"] if u["of"] == "w" and "Assign" not in u["operation"]]
    assert sorted(listed) == sorted(norms + directions)
    # Whatever a slot holds at frozen elements, nothing moves by it, and it stays.
    (frozen,) = plan.variables
    one, other = (tf.saved_model.load(str(tmp_path / "out")) for _ in range(2))
    slots = [next(v for v in _variables(m.optimizer) if "momentum" in v.name) for m in (one, other)]
    slots[1].assign(tf.where(frozen.full_mask, slots[1], slots[1] + 0.5))
    before = one.w.numpy()
    for _ in range(3):
        one.train()
        other.train()
    assert one.w.numpy().tobytes() == other.w.numpy().tobytes()
    assert ((one.w.numpy() != before) == frozen.full_mask).all()
    assert ((slots[0].numpy() == slots[1].numpy()) == frozen.full_mask).all()


def _variables(loaded: Any) -> list[Any]:
    inner = getattr(loaded, "inner_optimizer", loaded)
    return list(inner._variables)


# -- by hand


def orthogonal(x: Any) -> Any:
    for _ in range(2):
        product = tf.matmul(x, x, transpose_b=True)
        x = 1.5 * x - 0.5 * tf.matmul(product, x)
    return x


def step_with(direction: Callable[[Any, Any, Any, Any], Any]) -> Made:
    def made(m: Any, g: Any, x: Any) -> Any:
        m.v.assign_sub(direction(m, momentum(m, g), g, x))
        return tf.reduce_sum(x)

    return made


def written_where_it_begins(m: Any, g: Any, x: Any) -> Any:
    begins = m.s * 0.9 + g
    m.s.assign(begins)
    m.v.assign_sub(orthogonal(begins))
    return tf.reduce_sum(x)


def second_slot(m: Any, g: Any, x: Any) -> Any:
    direction = orthogonal(momentum(m, g))
    m.t.assign(m.t * 0.5 + direction)
    m.v.assign_sub(m.t.read_value())
    return tf.reduce_sum(x)


HELD: dict[str, tuple[Made, set[str]]] = {
    "alone": (step_with(lambda m, s, g, x: orthogonal(s)), {"s"}),
    "with the gradient": (step_with(lambda m, s, g, x: orthogonal(s + 0.1 * g)), {"s"}),
    "decayed": (step_with(lambda m, s, g, x: orthogonal(s) + 0.1 * m.v), {"s"}),
    "scaled by a vector": (step_with(lambda m, s, g, x: orthogonal(s) * m.r), {"s"}),
    "singular vectors": (step_with(lambda m, s, g, x: tf.linalg.svd(s)[1]), {"s"}),
    "by its norm": (step_with(lambda m, s, g, x: orthogonal(s) / tf.norm(orthogonal(s))), {"s"}),
    "two products": (step_with(lambda m, s, g, x: tf.einsum("ij,kj->ik", s, s)), {"s"}),
    "in halves": (step_with(lambda m, s, g, x: tf.cast(orthogonal(tf.cast(s, tf.bfloat16)), tf.float32)), {"s"}),
    "moved": (step_with(lambda m, s, g, x: s * tf.reduce_sum(tf.square(tf.transpose(s)))), {"s"}),
    "written where it begins": (written_where_it_begins, {"s"}),
    "into a second slot": (second_slot, {"s", "t"}),
}


@pytest.mark.parametrize("name", HELD)
def test_a_slot_may_begin_a_direction(tmp_path: Path, name: str) -> None:
    made, slots = HELD[name]
    found = find_in_step(made, tmp_path, "v")
    assert found.slots == {"v": slots}
    assert [variable for variable, _ in found.directions] == ["v"]
    assert found.norms == []
    plan = freeze_plan(tmp_path / "in", ["v"], "select")
    completed(tmp_path / "in", tmp_path / "out", plan)
    prove(tmp_path / "in", tmp_path / "out", plan)
    (frozen,) = plan.variables
    one, other = (tf.saved_model.load(str(tmp_path / "out")) for _ in range(2))
    other.s.assign(tf.where(frozen.full_mask, other.s, other.s + 0.5))
    x = tf.reshape(tf.range(1.0, 10.0), [3, 3]) / 10.0
    for _ in range(2):
        one.train(x)
        other.train(x)
    assert one.v.numpy().tobytes() == other.v.numpy().tobytes()


def teacher(m: Any, g: Any, x: Any) -> Any:
    """A slow average of a weight, which teaches that weight."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum((tf.matmul(x, m.v) - tf.matmul(x, m.s)) ** 2)
    m.v.assign_sub(0.1 * tape.gradient(loss, m.v))
    m.s.assign(m.s * 0.9 + m.v * 0.1)
    return loss


def given_out(m: Any, g: Any, x: Any) -> Any:
    direction = orthogonal(momentum(m, g))
    m.v.assign_sub(direction)
    return tf.reduce_sum(direction)


def of_another(m: Any, g: Any, x: Any) -> Any:
    m.t.assign(m.t * 0.5 + 1.0)
    m.r.assign(tf.linalg.diag_part(m.t))
    m.v.assign_sub(orthogonal(momentum(m, g) * m.t))
    return tf.reduce_sum(x)


def into_another(m: Any, g: Any, x: Any) -> Any:
    direction = orthogonal(momentum(m, g))
    m.v.assign_sub(direction)
    m.u.assign_sub(direction)
    return tf.reduce_sum(x)


def in_branches(m: Any, g: Any, x: Any) -> Any:
    s = momentum(m, g)
    m.v.assign_sub(tf.cond(tf.reduce_sum(x) > 0, lambda: orthogonal(s), lambda: s) + orthogonal(s))
    return tf.reduce_sum(x)


OTHERS: dict[str, Made] = {
    "teacher": teacher,
    "given out": given_out,
    "of another": of_another,
    "into another": into_another,
    "in branches": in_branches,
    "with the variable": step_with(lambda m, s, g, x: orthogonal(s + m.v)),
    "with what the step is given": step_with(lambda m, s, g, x: orthogonal(s + x)),
    "times something else": step_with(lambda m, s, g, x: tf.matmul(s, x)),
    "of rows": step_with(lambda m, s, g, x: orthogonal(tf.gather(s, [2, 1, 0]))),
    "spread": step_with(lambda m, s, g, x: tf.tile(tf.matmul(s, s)[:1] * g[:1], [3, 1])),
    "cut": step_with(lambda m, s, g, x: tf.concat([orthogonal(s)[:2], g[2:]], axis=0)),
    "its norm is given out": step_with(lambda m, s, g, x: orthogonal(s) + m.r.assign_add(tf.linalg.diag_part(s))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_products_begin_no_direction(tmp_path: Path, name: str) -> None:
    found = find_in_step(OTHERS[name], tmp_path, "v")
    assert (found.slots, found.directions) == ({}, [])


def test_without_a_slot_there_is_no_direction(tmp_path: Path) -> None:
    """A direction of the gradient alone: that has no frozen elements in a step that is traced anew."""

    def made(m: Any, g: Any, x: Any) -> Any:
        m.v.assign_sub(orthogonal(g * 0.5))
        return tf.reduce_sum(x)

    assert find_in_step(made, tmp_path, "v").directions == []


def test_two_directions_of_one_step(tmp_path: Path) -> None:
    def made(m: Any, g: Any, x: Any) -> Any:
        m.v.assign_sub(orthogonal(momentum(m, g)))
        m.u.assign_sub(orthogonal(momentum(m, g, "t")))
        return tf.reduce_sum(x)

    found = find_in_step(made, tmp_path, "u", "v")
    assert found.slots == {"u": {"t"}, "v": {"s"}}
    assert [variable for variable, _ in found.directions] == ["u", "v"]


def test_a_norm_inside_of_a_direction_without_slots_is_none(tmp_path: Path) -> None:
    """The momentum is given out, so it is no slot, and the direction no variable's."""

    def made(m: Any, g: Any, x: Any) -> Any:
        s = momentum(m, g)
        direction = orthogonal(s)
        m.v.assign_sub(direction / tf.norm(direction))
        return m.s.read_value()

    found = find_in_step(made, tmp_path, "v")
    assert (found.slots, found.norms, found.directions) == ({}, [], [])
