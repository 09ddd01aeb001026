"""The prover itself is tested: each damage to nodes, calls and functions of a rewritten model is found, and named."""

from __future__ import annotations

import pytest
from tensorflow.core.framework import types_pb2

from graphfreeze.selection.plan import Form
from tests.prover.mutant import FORMS, Make, Mutant, const_of, redirect

pytestmark = pytest.mark.parametrize("form", FORMS)


def model_body(model: Mutant) -> str:
    """A function that calls the shared one three times."""
    return str(
        next(
            f.signature.name
            for f in model.meta.graph_def.library.function
            if sum(n.op.endswith("PartitionedCall") for n in f.node_def) == 3
        )
    )


def test_one_call_site_of_a_clone_unmasked(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    readers = {m.function.signature.name for m in model.masked()}
    calls = [n for n in model.function(model_body(model)).node_def if n.op.endswith("PartitionedCall")]
    unmasked = [n.attr["f"].func.name for n in calls if n.attr["f"].func.name not in readers]
    assert len(unmasked) == 1, "the call with the third variable keeps an unmasked body"
    call = next(n for n in calls if n.attr["f"].func.name in readers)
    call.attr["f"].func.name = unmasked[0]
    details = model.failure("to be masked, found the unmasked read")
    assert details["function"] == unmasked[0]
    assert details["variable"] in ("a", "b")


def test_two_call_sites_of_clones_swapped(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    calls = [n for n in model.function(model_body(model)).node_def if n.op.endswith("PartitionedCall")]
    names = {m.function.signature.name for m in model.masked()}
    one, other = [n for n in calls if n.attr["f"].func.name in names]
    first = one.attr["f"].func.name
    one.attr["f"].func.name = other.attr["f"].func.name
    other.attr["f"].func.name = first
    model.failure("expected the plan's mask|expected the plan's frozen values")


def test_an_added_unmasked_read(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    node = masked.function.node_def.add()
    node.CopyFrom(masked.read)
    node.name = "added"
    redirect(masked, "added:value:0")
    details = model.failure("added operation ReadVariableOp")
    assert details["node"] == "added"


def test_an_added_node_without_purpose(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    node = model.masked("a")[0].function.node_def.add()
    node.name, node.op = "added", "NoOp"
    assert model.failure("expected every added node to belong to a masked read")["nodes"] == ["added"]


def test_a_masked_variable_that_is_not_in_the_plan(mutant: Make, form: Form) -> None:
    model = mutant("control_flow", form)
    model.plan = type(model.plan)(model.plan.variables[:1])
    assert model.failure("only reads of the plan's variables")["function"]


@pytest.mark.parametrize("name", ["shared", "table"])
def test_a_masked_read_when_saving(mutant: Make, form: Form, name: str) -> None:
    """The saver's function gets a masked read: a checkpoint would hold what is frozen instead of what is stored."""
    model = mutant(name, form)
    saver = next(n for n in model.meta.graph_def.node if n.name == model.meta.saver_def.save_tensor_name.split(":")[0])
    function = model.function(saver.attr["f"].func.name)
    source = model.masked()[0]
    needed = {source.mask.name, source.value.name, source.first.name, source.result.name}
    needed |= {const_of(source, n).name for n in (source.mask, source.value)}
    for node in [n for n in source.function.node_def if n.name in needed]:
        function.node_def.add().CopyFrom(node)
    read = next(n for n in function.node_def if n.op == "ReadVariableOp")
    first = next(n for n in function.node_def if n.name == source.first.name)
    for position, text in enumerate(first.input):
        if text == source.raw_tensor():
            first.input[position] = f"{read.name}:value:0"
    details = model.failure("expected only reads of the plan's variables to be masked, found 'Read/ReadVariableOp")
    assert details["function"] == function.signature.name


def test_a_missing_function(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    clone = next(m.function for m in model.masked() if m.function.signature.name.rstrip("0123456789")[-1] == "_")
    model.meta.graph_def.library.function.remove(clone)
    model.failure("expected the function in the rewritten model, found none|expected the node to call")


def test_an_added_function(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    added = model.meta.graph_def.library.function.add()
    added.CopyFrom(model.masked()[0].function)
    added.signature.name = "added"
    assert model.failure("an added one that nothing calls")["function"] == "added"


def test_an_unrelated_attribute(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    node = next(n for f in model.meta.graph_def.library.function for n in f.node_def if n.op == "MatMul")
    node.attr["T"].type = types_pb2.DT_DOUBLE
    details = model.failure("expected the node to stay as it is, found another attr")
    assert details["node"] == node.name
    assert details["attributes"] == ["T"]


def test_an_unrelated_constant(mutant: Make, form: Form) -> None:
    model = mutant("control_flow", form)
    masked = {m.function.signature.name for m in model.masked()}
    function = next(f for f in model.meta.graph_def.library.function if f.signature.name in masked)
    node = function.node_def.add()
    node.name, node.op = "control_flow_constant", "Const"
    node.attr["dtype"].type = types_pb2.DT_FLOAT
    node.attr["value"].tensor.dtype = types_pb2.DT_FLOAT
    model.failure("expected every added node")


def test_another_input(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    body = model.function(model_body(model))
    add = next(n for n in body.node_def if n.op == "AddV2")
    add.input[0] = add.input[1]
    assert model.failure("expected input 0 to be")["node"] == add.name


def test_a_removed_control_input(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    node = next(
        n for f in model.meta.graph_def.library.function for n in f.node_def if any(i.startswith("^") for i in n.input)
    )
    control = next(i for i in node.input if i.startswith("^"))
    node.input.remove(control)
    assert model.failure("number of inputs")["node"] == node.name


def test_a_function_attribute(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    function = model.masked()[0].function
    function.attr["_noinline"].b = True
    assert model.failure("found another attr")["function"] == function.signature.name


def test_a_captured_tensor_that_stays_raw(mutant: Make, form: Form) -> None:
    """A custom gradient's function would compute with the unmasked weights."""
    model = mutant("custom_gradient", form)
    masked = {m.result.name: m for m in model.masked("w")}
    captured = next(
        n.captured_tensor
        for n in model.meta.object_graph_def.nodes
        if n.WhichOneof("kind") == "captured_tensor" and n.captured_tensor.name.split(":")[0] in masked
    )
    captured.name = f"{masked[captured.name.split(':')[0]].read.name}:0"
    details = model.failure("captured tensor of object .* to be masked, found the unmasked read")
    assert details["function"] == captured.concrete_function
    assert details["variable"] == "w"
