"""A direction that begins with frozen elements, or with anything else than zeros in their places, is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2

from graphfreeze.prover import prove
from tests.prover.completing import completed
from tests.prover.damage import damaged, surviving
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan
from tests.prover.steps import Made, Step, momentum


def orthogonal(x: Any) -> Any:
    return 1.5 * x - 0.5 * tf.matmul(tf.matmul(x, x, transpose_b=True), x)


def two(m: Any, g: Any, x: Any) -> Any:
    """Directions of two variables, one of which is decayed, and begins with what is written into its slot."""
    m.v.assign_sub(orthogonal(momentum(m, g)) + 0.1 * m.v)
    begins = m.t * 0.9 + g
    m.t.assign(begins)
    m.u.assign_sub(orthogonal(begins))
    return tf.reduce_sum(x)


def clipped(m: Any, g: Any, x: Any) -> Any:
    """A norm in a function of its own, and another slot's update in one."""
    g = tf.function(lambda g: tf.clip_by_norm(g, 0.5))(g)
    m.v.assign_sub(tf.function(lambda g: momentum(m, g))(g))
    return tf.reduce_sum(x)


class Damaged(Mutant):
    """A copy of a rewritten step."""

    def body(self, meta: Any = None) -> function_pb2.FunctionDef:
        functions = (self.meta if meta is None else meta).graph_def.library.function
        (body,) = (f for f in functions if any(n.op == "AssignSubVariableOp" for n in f.node_def))
        return body

    def node(self, tensor: str) -> node_def_pb2.NodeDef:
        return next(n for n in self.body().node_def if n.name == tensor.split(":")[0])

    def kept(self) -> dict[str, list[node_def_pb2.NodeDef]]:
        """What masks the input of each direction, by that input."""
        beginnings = [e["node"] for v in self.evidence()["variables"] for e in self.listed(v)]
        found: dict[str, list[node_def_pb2.NodeDef]] = {name: [] for name in beginnings}
        for node in self.body().node_def:
            name = node.input[1].split(":")[0] if node.op == "SelectV2" else ""
            if name in found and self.node(node.input[2]).op == "Const":
                found[name].append(node)
        return found

    def takers(self, kept: node_def_pb2.NodeDef) -> list[tuple[node_def_pb2.NodeDef, int]]:
        return [
            (node, position)
            for node in self.body().node_def
            for position, text in enumerate(node.input)
            if text.split(":")[0] == kept.name
        ]

    def copied(self, node: node_def_pb2.NodeDef, name: str) -> node_def_pb2.NodeDef:
        added = self.body().node_def.add()
        added.CopyFrom(node)
        added.name = name
        return added

    @staticmethod
    def listed(variable: dict[str, Any]) -> list[dict[str, str]]:
        """The inputs of directions among what is masked."""
        updates = ("Assign", "Resource")
        return [u for u in variable["masked_updates"] if not u["operation"].startswith(updates)]


Make = Callable[[], Damaged]


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Made, bool], tuple[Path, Path]]:
    made: dict[tuple[Made, bool], tuple[Path, Path]] = {}

    def get(step: Made, shared: bool) -> tuple[Path, Path]:
        if (step, shared) not in made:
            path = tmp_path_factory.mktemp("step")
            tf.saved_model.save(Step(step), str(path / "in"))
            completed(path / "in", path / "out", freeze_plan(path / "in", ["u", "v"], "select"), shared=shared)
            made[step, shared] = path / "in", path / "out"
        return made[step, shared]

    return get


@pytest.fixture
def make(rewritten: Callable[[Made, bool], tuple[Path, Path]], tmp_path: Path) -> Make:
    original, after = rewritten(two, True)
    plan = freeze_plan(original, ["u", "v"], "select")
    count = iter(range(1000))

    def fresh() -> Damaged:
        into = tmp_path / str(next(count))
        into.mkdir()
        return Damaged.copy(original, after, plan, into)

    return fresh


def test_both_directions_are_listed(make: Make) -> None:
    found = {v["name"]: [u["operation"] for u in Damaged.listed(v)] for v in make().evidence()["variables"]}
    assert found == {"u": ["AddV2"], "v": ["Identity"]}


def test_each_node_that_takes_the_input_needs_it_masked(make: Make) -> None:
    whole = make()
    count = 0
    for name, (kept,) in whole.kept().items():
        for node, position in whole.takers(kept):
            model = make()
            model.node(node.name).input[position] = kept.input[1]
            details = model.failure(f"expected input {position}, of a direction, to be masked")
            assert (details["node"], details["function"]) == (node.name, model.body().signature.name)
            assert details["variable"] == {"Identity": "v", "AddV2": "u"}[whole.node(name).op]
            count += 1
    assert count == 8


def test_an_input_has_the_mask_of_another_variable(make: Make) -> None:
    model = make()
    (one,), (other,) = model.kept().values()
    one.input[0], other.input[0] = other.input[0], one.input[0]
    model.failure("expected the plan's mask, found another one")


def test_one_element_of_a_mask_is_another(make: Make) -> None:
    model = make()
    (kept,), _ = model.kept().values()
    tensor = model.node(kept.input[0]).attr["value"].tensor
    mask = tf.make_ndarray(tensor)
    mask[1, 1] = not mask[1, 1]
    tensor.CopyFrom(tf.make_tensor_proto(mask))
    model.failure("expected the plan's mask, found another one: 1 of 9 elements differ, the first at .1, 1")


@pytest.mark.parametrize("number", [1.0, -0.0])
def test_frozen_elements_are_no_zeros(make: Make, number: float) -> None:
    model = make()
    (kept,), _ = model.kept().values()
    zero = model.node(kept.input[2])
    zero.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(number, tf.float32))
    model.failure(f"expected 0.0 to be written at frozen elements, found {number}")


def test_the_zero_has_another_dtype(make: Make) -> None:
    model = make()
    (kept,), _ = model.kept().values()
    zero = model.node(kept.input[2])
    zero.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.0, tf.float64))
    zero.attr["dtype"].type = types_pb2.DT_DOUBLE
    model.failure("expected Const with")


def test_operands_are_swapped(make: Make) -> None:
    model = make()
    (kept,), _ = model.kept().values()
    kept.input[1], kept.input[2] = kept.input[2], kept.input[1]
    model.failure("expected a constant of its own in the masked update")


def test_another_tensor_is_masked(make: Make) -> None:
    model = make()
    (one,), (other,) = model.kept().values()
    model.copied(one, "elsewhere").input[1] = other.input[1]
    node, position = model.takers(one)[0]
    node.input[position] = "elsewhere:output:0"
    assert model.failure("to be .* found")["node"] == node.name


def test_what_is_written_is_not_masked_twice(make: Make) -> None:
    """The update itself takes the input as it is, masked by what is stored."""
    model = make()
    kept = next(kept for name, (kept,) in model.kept().items() if model.node(name).op == "AddV2")
    (written,) = (
        n for n in model.body().node_def if n.op == "SelectV2" and n.input[1] == kept.input[1] and n is not kept
    )
    written.input[1] = f"{kept.name}:output:0"
    model.failure("expected only reads of the plan's variables to be masked")


def test_a_mask_that_nothing_takes_is_no_part_of_the_proof(make: Make) -> None:
    model = make()
    (kept,), _ = model.kept().values()
    model.copied(kept, "elsewhere")
    model.failure("expected only reads of the plan's variables to be masked")


def test_what_begins_no_direction_is_masked(make: Make) -> None:
    """In both models something else takes what is inside; then no mask is right."""
    model = make()
    for meta in model.edit_both():
        body = model.body(meta)
        body.ret["identity"] = next(
            f"{n.name}:product:0" for n in body.node_def if n.op == "MatMul" and n.name != "MatMul"
        )
    model.failure("expected only reads of the plan's variables to be masked")


@pytest.mark.parametrize(("step", "shared"), [(two, True), (two, False), (clipped, True)])
def test_every_damage_to_an_added_node_is_found(
    rewritten: Callable[[Made, bool], tuple[Path, Path]], tmp_path: Path, step: Made, shared: bool
) -> None:
    original, after = rewritten(step, shared)
    model = Damaged.copy(original, after, freeze_plan(original, ["u", "v"], "select"), tmp_path)
    before = Mutant.copy(original, original, model.plan, tmp_path / "same").proto.meta_graphs[0]
    known = {f.signature.name: {n.name for n in f.node_def} for f in before.graph_def.library.function}

    def proof() -> object:
        model.save()
        return prove(model.original, model.rewritten, model.plan)

    left: list[str] = []
    for function in model.meta.graph_def.library.function:
        other = next((f"{n.name}:z:0" for n in function.node_def if n.op == "Mul"), "")
        for node in function.node_def:
            if node.name not in known[function.signature.name] and "graphfreeze" not in node.name and other:
                left += surviving(node, list(damaged(node, other).items())[::2], proof)
    assert left == []
