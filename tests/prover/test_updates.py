"""Masked updates are proven, and every damage to one is found: what is written, what is put back, what waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from tensorflow.core.framework import function_pb2, node_def_pb2

from graphfreeze.selection.plan import Form
from tests.prover.mutant import Mutant

Make = Callable[[str, Form], Mutant]


@pytest.fixture
def model(mutant: Make) -> Mutant:
    return mutant("updates", "blend")


def body(model: Mutant) -> function_pb2.FunctionDef:
    """The function that the damage is done to."""
    found = {u["function"] for v in model.evidence()["variables"] for u in v["masked_updates"]}
    return model.function(min(found))


def nodes(model: Mutant) -> list[node_def_pb2.NodeDef]:
    # Once for each model: what is damaged is not proven again.
    if not hasattr(model, "_body"):
        model.__dict__["_body"] = body(model)
    return list(model.__dict__["_body"].node_def)


def one(found: Iterable[node_def_pb2.NodeDef]) -> node_def_pb2.NodeDef:
    (node,) = found
    return node


def writing(model: Mutant, operation: str, of: str = "") -> node_def_pb2.NodeDef:
    """The node of the original that writes with that operation, into the variable at that object path."""
    names = {
        update["node"]
        for variable in model.evidence()["variables"]
        for update in variable["masked_updates"]
        if update["operation"] == operation and of in ("", variable["object_path"])
    }
    return one(n for n in nodes(model) if n.name in names)


def made(model: Mutant, tensor: str) -> node_def_pb2.NodeDef:
    return one(n for n in nodes(model) if n.name == tensor.split(":")[0])


def test_the_evidence_names_updates_and_slots(model: Mutant) -> None:
    evidence = {
        v["name"]: {(u["of"], u["operation"]) for u in v["masked_updates"]} for v in model.evidence()["variables"]
    }
    adam, momentum = "ResourceApplyAdam", "ResourceSparseApplyKerasMomentum"
    assert evidence == {
        "w": {("w", adam), ("m", adam), ("v", adam)},
        # Nothing of `e` depends on `e_v`, so that it is no slot.
        "e": {("e", momentum), ("m", momentum)},
        "b": {("b", "AssignSubVariableOp"), ("m", "AssignVariableOp")},
    }


@pytest.mark.parametrize("operation", ["AssignSubVariableOp", "AssignVariableOp"])
def test_a_dropped_mask(model: Mutant, operation: str) -> None:
    node = writing(model, operation)
    node.input[1] = made(model, node.input[1]).input[1]
    assert model.failure("expected the value that is written to be masked")["node"] == node.name


@pytest.mark.parametrize("operation", ["AssignSubVariableOp", "ResourceApplyAdam", "ResourceSparseApplyKerasMomentum"])
def test_another_mask(model: Mutant, operation: str) -> None:
    node = writing(model, operation)
    if operation == "AssignSubVariableOp":
        mask = made(model, made(model, node.input[1]).input[0])
    else:
        restored = [n for n in nodes(model) if n.name.startswith(f"{node.name}/graphfreeze/restore")]
        mask = made(model, made(model, restored[0].input[-1]).input[0])
    mask = mask if mask.op == "Const" else made(model, mask.input[0])
    content = bytearray(mask.attr["value"].tensor.tensor_content)
    content[0] ^= 1
    mask.attr["value"].tensor.tensor_content = bytes(content)
    # The slot that has the same mask may come first.
    assert model.failure("expected the plan's mask, found another one: 1 of")["node"] in {node.name, "AssignVariableOp"}


def test_any_bit_of_a_mask(model: Mutant) -> None:
    """A byte that is neither 0 nor 1 is a true one to numpy. What a kernel makes of it is not known."""
    node = writing(model, "AssignSubVariableOp")
    tensor = made(model, made(model, node.input[1]).input[0]).attr["value"].tensor
    content = bytearray(tensor.tensor_content)
    content[content.index(1)] ^= 2
    tensor.tensor_content = bytes(content)
    model.failure("expected the plan's mask, found another one: 1 of")


def test_masks_of_two_variables_are_swapped(model: Mutant) -> None:
    slot, variable = (made(model, writing(model, o).input[1]) for o in ("AssignVariableOp", "AssignSubVariableOp"))
    other = made(model, f"{writing(model, 'ResourceApplyAdam').name}/graphfreeze/keep:output:0")
    assert slot.input[0] == variable.input[0] != other.input[0]
    variable.input[0] = other.input[0]
    model.failure("expected a mask for")


def test_a_number_that_changes_what_is_stored(model: Mutant) -> None:
    node = writing(model, "AssignSubVariableOp")
    number = made(model, made(model, node.input[1]).input[2])
    number.attr["value"].tensor.tensor_content = np.float32(-0.0).tobytes()
    assert model.failure("expected 0.0 to be written at frozen elements, found -0.0")["node"] == node.name


def test_another_variable_is_kept(model: Mutant) -> None:
    node = writing(model, "AssignVariableOp")
    stored = made(model, made(model, node.input[1]).input[2])
    stored.input[0] = writing(model, "AssignSubVariableOp").input[0]
    assert model.failure("expected ReadVariableOp of")["node"] == node.name


def test_what_is_stored_is_read_too_late(model: Mutant) -> None:
    stored = made(model, made(model, writing(model, "AssignVariableOp").input[1]).input[2])
    stored.input.append(f"^{writing(model, 'ResourceApplyAdam').name}")
    model.failure("expected the read .* to wait for")


def test_a_slot_is_not_put_back(model: Mutant) -> None:
    node = writing(model, "ResourceApplyAdam")
    done = one(n for n in nodes(model) if n.name == f"{node.name}/graphfreeze/done")
    done.input.pop()
    assert model.failure("found another number of inputs")["node"] == node.name
    node.input.remove(f"^{one(n for n in nodes(model) if n.name == node.name + '/graphfreeze/before_2').name}")
    model.failure("expected each variable that the update writes to be put back")


def test_nothing_is_put_back(model: Mutant) -> None:
    node = writing(model, "ResourceApplyAdam")
    one(n for n in nodes(model) if n.name == f"{node.name}/graphfreeze/done").op = "Identity"
    assert model.failure("expected frozen elements to be put back")["node"] == node.name


def test_a_node_waits_for_the_update_alone(model: Mutant) -> None:
    node = writing(model, "ResourceApplyAdam")
    done = f"^{node.name}/graphfreeze/done"
    waiting = next(n for n in nodes(model) if done in n.input)
    waiting.input[list(waiting.input).index(done)] = f"^{node.name}"
    model.failure("expected the control input")


def test_the_caller_waits_for_the_update_alone(model: Mutant) -> None:
    function = body(model)
    (key,) = (k for k, name in function.control_ret.items() if name.endswith("graphfreeze/done") and "Adam" in name)
    function.control_ret[key] = function.control_ret[key].removesuffix("/graphfreeze/done")
    model.failure("found another control_ret")


def test_stored_values_are_read_after_the_update(model: Mutant) -> None:
    """What is put back would be what the update wrote."""
    node = writing(model, "ResourceApplyAdam")
    before = one(n for n in nodes(model) if n.name == f"{node.name}/graphfreeze/before")
    node.input.remove(f"^{before.name}")
    model.failure("found another number of inputs")
    before.input.append(f"^{node.name}")
    model.failure("found another number of inputs|to wait for")


def test_rows_are_put_back_elsewhere(model: Mutant) -> None:
    node = writing(model, "ResourceSparseApplyKerasMomentum")
    restore = one(n for n in nodes(model) if n.name == f"{node.name}/graphfreeze/restore")
    restore.input[1] = made(model, made(model, restore.input[2]).input[0]).input[2]
    assert model.failure("rows to be put back at the update's indices")["node"] == node.name


def test_what_is_no_slot_is_held(mutant: Make) -> None:
    """A variable that is not known to be a slot has to be written as before."""
    model = mutant("updates", "blend")
    kept = made(model, writing(model, "AssignSubVariableOp").input[1])
    scatter = one(n for n in nodes(model) if n.op == "ResourceScatterSub")
    added = body(model).node_def.add()
    added.CopyFrom(kept)
    added.name, added.input[1] = "held", scatter.input[2]
    scatter.input[2] = "held:output:0"
    assert model.failure("")["node"]


def test_an_unmasked_update_is_added(model: Mutant) -> None:
    node = writing(model, "AssignSubVariableOp")
    function = body(model)
    added = function.node_def.add()
    added.CopyFrom(node)
    added.name = "again"
    model.failure("expected every added node to belong to")
