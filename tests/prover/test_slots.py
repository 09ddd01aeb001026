"""Slots behind gathers and in branches are proven to be held, and every damage to that is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.framework import function_pb2, node_def_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from tests.passes.training_models import OPTIMIZERS, VARIABLES, save
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan, rewrite

Make = Callable[[str], Mutant]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A rewritten model with a training step, by the name of its optimizer; each call gives a fresh copy."""
    made: dict[str, tuple[Path, Path]] = {}

    def make(name: str) -> Mutant:
        if name not in made:
            path = tmp_path_factory.mktemp("trained")
            original = save(OPTIMIZERS[name](), path / "original")
            made[name] = original, rewrite(original, path / "rewritten", freeze_plan(original, VARIABLES, "blend"))
        original, rewritten = made[name]
        plan = freeze_plan(original, VARIABLES, "blend")
        return Mutant.copy(original, rewritten, plan, tmp_path_factory.mktemp("copy"))

    return make


def training(
    meta: meta_graph_pb2.MetaGraphDef, operation: str
) -> list[tuple[function_pb2.FunctionDef, node_def_pb2.NodeDef]]:
    """The nodes with an operation in functions of the training step, with their functions."""
    functions = [f for f in meta.graph_def.library.function if "predict" not in f.signature.name]
    return [(f, n) for f in functions for n in f.node_def if n.op == operation and "gradient_tape" not in n.name]


def made(function: function_pb2.FunctionDef, tensor: str) -> node_def_pb2.NodeDef:
    return next(n for n in function.node_def if n.name == tensor.split(":")[0])


def slots_of(model: Mutant, path: str) -> dict[str, set[str]]:
    """The slots of a variable and the operations that write them, as they are proven."""
    (entry,) = (v for v in model.evidence()["variables"] if v["object_path"] == path)
    found: dict[str, set[str]] = {}
    for update in entry["masked_updates"]:
        if update["of"] != entry["name"]:
            found.setdefault(update["of"], set()).add(update["operation"])
    return found


SLOTS = {
    "tf_keras RMSprop": [{"AssignVariableOp", "ResourceScatterAdd"}] * 3,
    "tf_keras Adagrad": [{"ResourceScatterAdd"}],
    "tf_keras Adamax": [{"AssignAddVariableOp", "ResourceScatterAdd"}, {"AssignVariableOp", "ResourceScatterAdd"}],
    "Keras 3 RMSprop": [{"AssignVariableOp"}],
    "Keras 3 RMSprop with momentum": [{"AssignVariableOp"}] * 3,
    "Keras 3 Adagrad": [{"ResourceScatterAdd"}],
    "Keras 3 Adadelta": [{"AssignVariableOp"}] * 2,
    "Keras 3 accumulation": [{"AssignVariableOp"}] * 2,
    "Keras 3 accumulation with Adam": [{"AssignAddVariableOp"}] * 2 + [{"AssignVariableOp"}],
    "Keras 3 accumulation with clipping": [{"AssignVariableOp"}] * 2,
    "Keras 3 Lamb": [{"AssignAddVariableOp"}] * 2,
    "Keras 3 Adafactor": [{"AssignVariableOp"}],
}


@pytest.mark.parametrize("name", SLOTS)
def test_slots_of_an_embedding_are_proven(trained: Make, name: str) -> None:
    found = slots_of(trained(name), "e")
    assert sorted(map(sorted, found.values())) == sorted(map(sorted, SLOTS[name]))


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("tf_keras RMSprop", "ResourceScatterAdd"),
        ("Keras 3 Adagrad", "ResourceScatterAdd"),
        ("Keras 3 RMSprop", "AssignVariableOp"),
        ("Keras 3 accumulation", "AssignVariableOp"),
        ("Keras 3 Lamb", "AssignAddVariableOp"),
    ],
)
def test_every_update_of_a_slot_is_masked(trained: Make, name: str, operation: str) -> None:
    count = 0
    for k, (function, node) in enumerate(training(trained(name).meta, operation)):
        if f"{node.name}/graphfreeze/keep" not in {n.name for n in function.node_def}:
            continue
        model = trained(name)
        function, node = training(model.meta, operation)[k]
        node.input[2 if "Scatter" in node.op else 1] = made(function, f"{node.name}/graphfreeze/keep").input[1]
        assert model.failure("expected the value that is written to be masked")["node"] == node.name
        count += 1
    assert count >= (1 if name == "Keras 3 Adagrad" else 2)


@pytest.mark.parametrize("name", ["tf_keras RMSprop", "Keras 3 RMSprop", "Keras 3 accumulation"])
def test_a_slot_is_held_with_another_mask(trained: Make, name: str) -> None:
    model = trained(name)
    for function, node in training(model.meta, "SelectV2"):
        if not node.name.endswith("/graphfreeze/keep"):
            continue
        mask = made(function, node.input[0])
        mask = mask if mask.op == "Const" else made(function, mask.input[0])
        tensor = mask.attr["value"].tensor
        if [dim.size for dim in tensor.tensor_shape.dim] == [5, 3]:
            content = bytearray(tensor.tensor_content)
            content[3] ^= 1
            copied = function.node_def.add()
            copied.CopyFrom(mask)
            copied.name = "another_mask"
            copied.attr["value"].tensor.tensor_content = bytes(content)
            if node.input[0].split(":")[0] == mask.name:
                node.input[0] = "another_mask:output:0"
            else:
                made(function, node.input[0]).input[0] = "another_mask:output:0"
            break
    model.failure("expected the plan's mask, found another one: 1 of 15 elements differ, the first at .1, 0")


def test_the_mask_of_a_slot_is_gathered_at_other_indices(trained: Make) -> None:
    model = trained("Keras 3 Adagrad")
    function, scatter = next((f, n) for f, n in training(model.meta, "ResourceScatterAdd"))
    gather = made(function, f"{scatter.name}/graphfreeze/mask")
    added = function.node_def.add()
    added.CopyFrom(gather)
    added.name = "elsewhere"
    other = next(n for n in function.node_def if n.op == "ResourceScatterSub")
    assert other.input[1] != scatter.input[1]
    added.input[1] = other.input[1]
    made(function, f"{scatter.name}/graphfreeze/keep").input[0] = "elsewhere:output:0"
    assert model.failure("expected the mask to be gathered with the update's indices")["node"] == scatter.name


# -- norms of slots


@pytest.mark.parametrize(
    ("name", "operation", "count"),
    [
        ("Keras 3 Lamb", "Sum", 3),
        ("Keras 3 Adafactor", "Mean", 6),
        ("Keras 3 Adafactor", "Sum", 1),
        ("Keras 3 Adafactor, dense", "Mean", 7),
        ("Keras 3 accumulation with clipping", "Sum", 3),
        ("tf_keras clipping", "L2Loss", 3),
    ],
)
def test_every_norm_is_masked(trained: Make, name: str, operation: str, count: int) -> None:
    found = [
        k
        for k, (function, node) in enumerate(training(trained(name).meta, operation))
        if f"{node.name}/graphfreeze/keep" in {n.name for n in function.node_def}
    ]
    assert len(found) == count
    for k in found:
        model = trained(name)
        function, node = training(model.meta, operation)[k]
        node.input[0] = made(function, f"{node.name}/graphfreeze/keep").input[1]
        assert model.failure("expected the value that is written to be masked")["node"] == node.name


def test_a_norm_is_masked_with_the_mask_of_another_variable(trained: Make) -> None:
    model = trained("Keras 3 Lamb")
    one, other, _ = (
        n
        for f, n in training(model.meta, "SelectV2")
        if n.name.endswith("/graphfreeze/keep") and made(f, n.name.removesuffix("/graphfreeze/keep")).op == "Sum"
    )
    assert one.input[0] != other.input[0]
    one.input[0] = other.input[0]
    model.failure("expected the plan's mask, found another one|expected a mask for")


def test_frozen_elements_count_as_one_in_a_norm(trained: Make) -> None:
    model = trained("Keras 3 Lamb")
    function, norm = next(
        (f, n) for f, n in training(model.meta, "Sum") if f"{n.name}/graphfreeze/keep" in {m.name for m in f.node_def}
    )
    kept = made(function, f"{norm.name}/graphfreeze/keep")
    ones = function.node_def.add()
    ones.CopyFrom(made(function, kept.input[2]))
    ones.name = "one_instead"
    ones.attr["value"].tensor.tensor_content = np.ones((), np.float32).tobytes()
    kept.input[2] = "one_instead:output:0"
    assert model.failure("expected 0.0 to be written at frozen elements, found 1.0")["node"] == norm.name


# -- what makes it a slot is changed in both models: then it is none, and must not be held


def edit(model: Mutant, change: Callable[[function_pb2.FunctionDef], bool]) -> None:
    """Change functions of both models alike; at least one has to change in each."""
    for meta in model.edit_both():
        changed = [change(function) for function in meta.graph_def.library.function]
        assert any(changed)


def test_a_gather_at_other_indices_makes_no_slot(trained: Make) -> None:
    def change(function: function_pb2.FunctionDef) -> bool:
        gathers = [n for n in function.node_def if n.op == "GatherV2" and n.name.startswith("RMSprop/GatherV2")]
        for node in gathers:
            assert node.input[1] == "RMSprop/Unique:y:0"
            node.input[1] = "RMSprop/Unique:idx:0"
        return bool(gathers)

    model = trained("tf_keras RMSprop")
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked")


@pytest.mark.parametrize("name", ["tf_keras Adagrad", "tf_keras Adamax"])
def test_a_read_of_rows_at_other_indices_makes_no_slot(trained: Make, name: str) -> None:
    def change(function: function_pb2.FunctionDef) -> bool:
        gathers = [n for n in function.node_def if n.op == "ResourceGather" and n.name.startswith("Ada")]
        for node in gathers:
            node.input[1] = node.input[1].replace(":y:", ":idx:")
        return bool(gathers)

    model = trained(name)
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked")


def constant(function: function_pb2.FunctionDef, suffix: str, number: int) -> bool:
    """Set a constant with an own value for all elements."""
    found = [n for n in function.node_def if n.op == "Const" and n.name.endswith(suffix)]
    for node in found:
        tensor = node.attr["value"].tensor
        kind = "float_val" if tensor.float_val else "int_val"
        del getattr(tensor, kind)[:]
        getattr(tensor, kind).append(number)
    return bool(found)


@pytest.mark.parametrize(
    ("name", "suffix", "number"),
    [
        ("Keras 3 Adagrad", "adagrad/Equal/y", 1),
        ("Keras 3 RMSprop", "rm_sprop/cond/GatherV2/axis", 1),
        ("Keras 3 RMSprop with momentum", "rm_sprop/strided_slice_2/stack", 1),
        ("tf_keras RMSprop", "RMSprop/GatherV2/axis", 1),
    ],
)
def test_another_constant_makes_no_slot(trained: Make, name: str, suffix: str, number: int) -> None:
    """The test is one for ones; rows are columns; the sum has as many rows as the variable has columns."""
    model = trained(name)
    edit(model, lambda function: constant(function, suffix, number))
    model.failure("expected only reads of the plan's variables to be masked")


@pytest.mark.parametrize("name", ["Keras 3 RMSprop with momentum", "Keras 3 clipping"])
def test_a_sum_into_fewer_rows_makes_no_slot(trained: Make, name: str) -> None:
    """It could be spread over all rows of the variable. Nor is a norm of it one of the variable's gradient."""

    def change(function: function_pb2.FunctionDef) -> bool:
        found = [n for n in function.node_def if n.name == "gradients/Gather_grad/Const"]
        for node in found:
            node.attr["value"].tensor.tensor_content = np.array([1, 3], np.int32).tobytes()
        return bool(found)

    model = trained(name)
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked")


def test_a_branch_that_returns_rows_in_other_places_makes_no_slot(trained: Make) -> None:
    def change(function: function_pb2.FunctionDef) -> bool:
        found = [n for n in function.node_def if "cond_false" in function.signature.name and n.op == "Cast"]
        for node in found:
            assert node.input[0] == "rm_sprop/cond/Identity_1:output:0"
            negative = function.node_def.add(name="negative", op="Neg")
            negative.input.append(node.input[0])
            negative.attr["T"].type = node.attr["SrcT"].type
            node.input[0] = "negative:y:0"
        return bool(found)

    model = trained("Keras 3 RMSprop")
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked")


def test_a_branch_without_handles_that_gives_a_value_out_makes_no_slot(trained: Make) -> None:
    """The divisor is returned where its rows' indices were: whoever takes these takes what it holds."""

    def change(function: function_pb2.FunctionDef) -> bool:
        found = [n for n in function.node_def if "cond_false" in function.signature.name and n.op == "Cast"]
        for node in found:
            node.input[0], node.attr["SrcT"].type = "rm_sprop/cond/truediv:z:0", 1
        return bool(found)

    model = trained("Keras 3 RMSprop")
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked")


def test_accumulated_gradients_that_go_elsewhere_make_no_slot(trained: Make) -> None:
    """Outputs of an identity of several tensors are swapped, in both models."""

    def change(function: function_pb2.FunctionDef) -> bool:
        names = [n.name for n in function.node_def if n.op == "IdentityN"]
        for node in function.node_def if names else ():
            for k, text in enumerate(node.input):
                if text == f"{names[0]}:output:2":
                    node.input[k] = f"{names[0]}:output:0"
        return bool(names)

    model = trained("Keras 3 accumulation")
    edit(model, change)
    model.failure("expected only reads of the plan's variables to be masked|expected a slot of one targeted variable")
