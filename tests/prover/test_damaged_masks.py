"""The prover itself is tested: each damage to masked reads of a rewritten model is found, and named."""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2

from graphfreeze.selection.plan import Form
from tests.prover.mutant import FORMS, Make, const_of, flip, redirect

pytestmark = pytest.mark.parametrize("form", FORMS)


# -- masks and values


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


# -- the shape of a masked read


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


def test_a_dtype_that_does_not_exist(mutant: Make, form: Form) -> None:
    model = mutant("control_flow", form)
    masked = model.masked("a")[0]
    masked.first.attr["T"].type = 1_000_000_000
    assert model.failure("found the number 1000000000, which is no DataType")["node"] == masked.first.name


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
