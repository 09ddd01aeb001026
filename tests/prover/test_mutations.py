"""The prover itself is tested: each damage to a rightly rewritten model is found, and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorflow.core.framework import node_def_pb2, types_pb2
from tensorflow.core.protobuf import fingerprint_pb2

from graphfreeze.selection.plan import Form
from tests.prover.mutant import Masked, Mutant

FORMS: tuple[Form, ...] = ("blend", "select")
Make = Callable[[str, Form], Mutant]

pytestmark = pytest.mark.parametrize("form", FORMS)


def redirect(masked: Masked, to: str) -> str:
    """Let the first consumer of a masked read take another tensor; returns the consumer's name."""
    node, position = masked.consumers(masked.result)[0]
    node.input[position] = to
    return str(node.name)


def const_of(masked: Masked, node: node_def_pb2.NodeDef) -> node_def_pb2.NodeDef:
    """The Const behind gathers and StopGradient."""
    while node.op != "Const":
        node = masked.node(node.input[0])
    return node


def flip(const: node_def_pb2.NodeDef, byte: int, bit: int = 0) -> None:
    """Flip one bit of a constant."""
    tensor = const.attr["value"].tensor
    content = bytearray(tensor.tensor_content)
    content[byte] ^= 1 << bit
    tensor.tensor_content = bytes(content)


# Masks and values.


@pytest.mark.parametrize(
    ("name", "path"), [("shared", "a"), ("control_flow", "b"), ("recurrent", "variables/2"), ("custom_gradient", "w")]
)
def test_a_dropped_mask(mutant: Make, form: Form, name: str, path: str) -> None:
    model = mutant(name, form)
    masked = next(m for m in model.masked(path) if m.consumers(m.result))
    consumer = redirect(masked, masked.raw_tensor())
    details = model.failure("to be masked, found the unmasked read")
    assert details["node"] == consumer
    assert details["function"] == masked.function.signature.name
    assert details["variable"] == next(v.variable.name for v in model.plan.variables if v.variable.object_path == path)


def test_a_dropped_mask_of_a_returned_read(mutant: Make, form: Form) -> None:
    model = mutant("recurrent", form)
    masked = model.masked("variables/1")[0]
    name = masked.function.signature.name
    # Let both models return the read, too: only the rewritten one may not return it as it is.
    for meta in model.edit_both():
        function = next(f for f in meta.graph_def.library.function if f.signature.name == name)
        output = function.signature.output_arg.add()
        output.name, output.type = "leak", types_pb2.DT_FLOAT
        function.ret["leak"] = masked.raw_tensor()
    assert model.failure("expected output 'leak' to be masked")["function"] == name
    masked.function.ret["leak"] = f"{masked.result.name}:{'z' if form == 'blend' else 'output'}:0"
    model.save()
    assert model.evidence()["proven"]


def test_swapped_masks(mutant: Make, form: Form) -> None:
    model = mutant("control_flow", form)
    one, other = (const_of(m, m.mask) for m in (model.masked("a")[0], model.masked("b")[0]))
    content = one.attr["value"].tensor.tensor_content
    assert content != other.attr["value"].tensor.tensor_content
    one.attr["value"].tensor.tensor_content = other.attr["value"].tensor.tensor_content
    assert model.failure("expected the plan's mask, found another one")["variable"] == "a"


def test_swapped_variables(mutant: Make, form: Form) -> None:
    model = mutant("recurrent", form)
    one, other = model.masked("variables/1")[0], model.masked("variables/2")[0]
    consumer = redirect(one, f"{other.result.name}:{'z' if form == 'blend' else 'output'}:0")
    details = model.failure(f"to be '{one.raw_tensor()}' masked, found '{other.read.name}' masked")
    assert details["node"] == consumer


@pytest.mark.parametrize(("name", "path"), [("shared", "a"), ("gathers", "rows"), ("recurrent", "variables/0")])
def test_a_flipped_bit_of_a_frozen_value(mutant: Make, form: Form, name: str, path: str) -> None:
    model = mutant(name, form)
    masked = model.masked(path)[0]
    frozen = next(v for v in model.plan.variables if v.variable.object_path == path)
    element = int(np.flatnonzero(~frozen.full_mask)[-1])
    flip(const_of(masked, masked.value), element * 4)
    details = model.failure("expected the plan's frozen values.*which is frozen")
    assert details["variable"] == frozen.variable.name
    assert details["index"] == list(np.unravel_index(element, frozen.variable.shape))


def test_a_flipped_bit_of_a_trainable_value(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    frozen = model.plan.variables[0]
    # The sign bit: -0.0 becomes 0.0.
    flip(const_of(masked, masked.value), int(np.flatnonzero(frozen.full_mask)[0]) * 4 + 3, 7)
    if form == "blend":
        model.failure("which is trainable")
    else:
        # select never looks there.
        model.save()
        assert model.evidence()["proven"]


def test_a_flipped_mask_element(mutant: Make, form: Form) -> None:
    model = mutant("gathers", form)
    masked = next(m for m in model.masked("rows") if m.mask.op == "GatherV2")
    const = const_of(masked, masked.mask)
    if form == "select":
        flip(const, 1)
    else:
        flip(const, 5, 7)
    assert model.failure("expected the plan's mask, found another one: 1 of 12")["index"] == [0, 1]


def test_a_mask_of_another_shape(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    const_of(masked, masked.mask).attr["value"].tensor.tensor_shape.dim[0].size = 1
    model.failure("constant of dtype .* found none")


def test_masks_that_are_no_constants(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    masked.first.input[0] = "x"
    model.failure("expected Mul\\(mask, read\\)|expected a constant of its own")


# The shape of a masked read.


def test_a_dropped_stop_gradient(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    if form == "blend":
        stop = masked.value
        assert stop.op == "StopGradient"
        const = masked.node(stop.input[0])
        masked.result.input[1] = stop.input[0]
        masked.function.node_def.remove(stop)
        details = model.failure("expected StopGradient on the frozen values of a blend, found none")
        assert details["variable"] == "a"
        assert const.op == "Const"
    else:
        masked.first.input[0], masked.first.input[2] = masked.first.input[2], masked.first.input[0]
        model.failure("expected DT_BOOL|expected dtype=|expected a constant")


def test_commuted_operands_are_the_same(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    for masked in model.masked():
        for node in (masked.first, masked.result) if form == "blend" else ():
            node.input[0], node.input[1] = node.input[1], node.input[0]
    model.save()
    assert model.evidence()["proven"]


def test_another_operation(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    masked.result.op = "Sub" if form == "blend" else "Select"
    assert model.failure("added operation (Sub|Select)")["node"] == masked.result.name


def test_a_control_input_on_a_masked_read(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    masked = model.masked("a")[0]
    const_of(masked, masked.mask).input.append(f"^{masked.read.name}")
    model.failure("control inputs")


@pytest.mark.parametrize("operand", ["mask", "value"])
@pytest.mark.parametrize("operation", ["ResourceGather", "ResourceGatherNd", "GatherV2"])
def test_another_gather_index(mutant: Make, form: Form, operation: str, operand: str) -> None:
    model = mutant("gathers", form)
    masked = model.masked("rows", operation)[0]
    gather = masked.mask if operand == "mask" else masked.value
    gather = masked.node(gather.input[0]) if gather.op == "StopGradient" else gather
    # Another tensor of the same shape: what the argument plus one is gathered with, or the argument itself.
    indices = {n.input[1] for n in masked.function.node_def if n.op == "ResourceGather"} - {gather.input[1]}
    gather.input[1] = sorted(indices)[0]
    details = model.failure(f"expected the {operand} to be gathered with the read's indices")
    assert details["variable"] == "rows"
    assert details["node"] == gather.name


def test_another_gather_axis(mutant: Make, form: Form) -> None:
    model = mutant("gathers", form)
    masked = model.masked("batched")[0]
    gather = masked.mask
    assert gather.op == "GatherV2"
    gather.attr["batch_dims"].i = 0
    model.failure("gathered along axis 1 with 1 batch axes, found axis 1 with 0")


def test_an_ungathered_mask(mutant: Make, form: Form) -> None:
    model = mutant("gathers", form)
    masked = next(m for m in model.masked("rows", "ResourceGather"))
    gather = masked.mask
    masked.first.input[0] = gather.input[0]
    masked.function.node_def.remove(gather)
    model.failure("expected the mask gathered with the read's indices, found it ungathered")


# More, fewer, other nodes and functions.


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


def model_body(model: Mutant) -> str:
    """A function that calls the shared one three times."""
    return str(
        next(
            f.signature.name
            for f in model.meta.graph_def.library.function
            if sum(n.op.endswith("PartitionedCall") for n in f.node_def) == 3
        )
    )


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


# Around the graph.


def test_the_object_graph(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    concrete = model.meta.object_graph_def.concrete_functions
    name = next(name for name in sorted(concrete) if len(concrete[name].bound_inputs) == 3)
    bound = concrete[name].bound_inputs
    bound[0], bound[1] = bound[1], bound[0]
    model.failure("expected the object graph to stay as it is, found another concrete_functions")


def test_an_object(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    node = next(n for n in model.meta.object_graph_def.nodes if n.WhichOneof("kind") == "variable")
    node.variable.trainable = not node.variable.trainable
    model.failure("expected node .* of the object graph to stay as it is, found another variable")


def test_a_signature(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.signature_def["serving_default"].method_name = "another"
    model.failure("expected signature 'serving_default' to stay as it is, found another method_name")


def test_a_signature_call(mutant: Make, form: Form) -> None:
    """Session loaders run the main graph: its calls must lead to the masked bodies, too."""
    model = mutant("shared", form)
    node = next(n for n in model.meta.graph_def.node if n.op == "StatefulPartitionedCall" and len(n.input) == 4)
    node.input[1], node.input[2] = node.input[2], node.input[1]
    details = model.failure("expected input 1 to be")
    assert details["function"] == "the main graph"


def test_the_saver(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.saver_def.max_to_keep += 1
    model.failure("expected the meta graph to stay as it is, found another saver_def")


def test_the_versions(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    model.meta.graph_def.versions.producer += 1
    model.failure("expected the graph to stay as it is, found another versions")


@pytest.mark.parametrize("file", ["variables/variables.data-00000-of-00001", "variables/variables.index"])
def test_an_altered_checkpoint(mutant: Make, form: Form, file: str) -> None:
    model = mutant("shared", form)
    path = Path(model.rewritten / file)
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(bytes(content))
    details = model.failure("byte-identical to the original's, found a difference at byte 17")
    assert details == {"file": file, "offset": 17}


def test_missing_and_added_files(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    own = model.rewritten / "assets.extra" / "graphfreeze" / "plan.json"
    own.parent.mkdir(parents=True)
    own.write_text("{}")
    assert model.evidence()["proven"]
    shard = model.rewritten / "variables" / "variables.data-00000-of-00001"
    added = shard.rename(shard.with_name("another"))
    assert model.failure("found none in the rewritten model")["file"] == "variables/variables.data-00000-of-00001"
    shard.write_bytes(added.read_bytes() + b"more")
    model.failure("found the added file variables/another")
    added.unlink()
    model.failure("byte-identical")


def test_the_fingerprint(mutant: Make, form: Form) -> None:
    model = mutant("shared", form)
    path = model.rewritten / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.checkpoint_hash += 1
    path.write_bytes(fingerprint.SerializeToString())
    assert model.failure("expected fingerprint.pb to keep checkpoint_hash")["field"] == "checkpoint_hash"
    path.write_bytes(b"\xff")
    model.failure("expected a FingerprintDef")
    # Older versions of TensorFlow hash otherwise, or not at all.
    fingerprint.version.producer += 1
    path.write_bytes(fingerprint.SerializeToString())
    assert model.evidence()["proven"]
    (model.original / "fingerprint.pb").unlink()
    assert model.evidence()["proven"]
