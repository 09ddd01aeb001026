"""Ways that a handle can take: those that are understood are proven, the others are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tensorflow.core.framework import function_pb2, types_pb2

from graphfreeze.errors import VerificationError
from graphfreeze.prover import prove
from graphfreeze.selection.plan import Form
from tests.prover.mutant import Mutant
from tests.prover.rewriting import freeze_plan

Make = Callable[[str, Form], Mutant]


def test_a_use_that_is_not_understood(original: Callable[[str], Path]) -> None:
    with pytest.raises(VerificationError, match="found it in MapDataset") as caught:
        prove(original("dataset"), original("dataset"), freeze_plan(original("dataset"), ["w"], "select"))
    assert caught.value.details["variable"] == "w"


def test_other_variables_may_be_used_freely(original: Callable[[str], Path]) -> None:
    assert prove(original("dataset"), original("dataset"), freeze_plan(original("dataset"), [], "select"))["proven"]


def handle_argument(function: function_pb2.FunctionDef) -> str:
    return str(next(a.name for a in function.signature.input_arg if a.type == types_pb2.DT_RESOURCE))


def functions_with_masked_read(model: Mutant) -> list[function_pb2.FunctionDef]:
    """A concrete function with a masked read: the original's, the rewritten one's."""
    names = {m.function.signature.name for m in model.masked()} & set(model.meta.object_graph_def.concrete_functions)
    before, after = ({f.signature.name: f for f in meta.graph_def.library.function} for meta in model.edit_both())
    name = min(names)
    return [before[name], after[name]]


def test_a_loop_that_does_not_hand_its_handle_on(mutant: Make) -> None:
    model = mutant("control_flow", "select")
    bodies = set()
    for meta in model.edit_both():
        for function in meta.graph_def.library.function:
            loops = [n for n in function.node_def if n.op in ("While", "StatelessWhile")]
            bodies |= {n.attr["body"].func.name for n in loops}
        for function in meta.graph_def.library.function:
            if function.signature.name in bodies:
                handle = handle_argument(function)
                position = [a.name for a in function.signature.input_arg].index(handle)
                function.ret[function.signature.output_arg[position].name] = function.signature.input_arg[0].name
    assert bodies
    model.failure("its body swaps handles")


def test_a_gradient_of_a_handle(mutant: Make) -> None:
    model = mutant("recurrent", "select")
    for function in functions_with_masked_read(model):
        node = function.node_def.add(name="custom", op="IdentityN", input=[handle_argument(function)])
        node.attr["T"].list.type.append(types_pb2.DT_RESOURCE)
        node.attr["_gradient_op_type"].s = b"CustomGradient-1"
    # The handle is one that carries a targeted variable: all of the model's variables are targeted.
    assert model.failure("operations known to be safe only, found it in IdentityN")["node"] == "custom"


def test_a_handle_that_is_returned(mutant: Make) -> None:
    model = mutant("recurrent", "select")
    for function in functions_with_masked_read(model):
        output = function.signature.output_arg.add()
        output.name, output.type = "leak", types_pb2.DT_RESOURCE
        function.ret["leak"] = handle_argument(function)
    assert model.failure("expected handles to stay inside of the model")["variable"]


def test_a_handle_through_identities_and_a_call_by_name(mutant: Make) -> None:
    """A function called by its own name as the operation, with a handle that took a detour."""
    model = mutant("shared", "select")
    for meta in model.edit_both():
        signatures = {f.signature.name: f.signature for f in meta.graph_def.library.function}
        for function in meta.graph_def.library.function:
            calls = [n for n in function.node_def if n.op.endswith("PartitionedCall")]
            if len(calls) != 3:
                continue
            for node in calls:
                detour = function.node_def.add(name=f"{node.name}/detour", op="Identity", input=[node.input[1]])
                detour.attr["T"].type = types_pb2.DT_RESOURCE
                node.input[1] = f"{detour.name}:output:0"
                node.op = node.attr["f"].func.name
                node.attr.clear()
                output = signatures[node.op].output_arg[0].name
                for other in function.node_def:
                    for position, text in enumerate(other.input):
                        if text == f"{node.name}:output:0":
                            other.input[position] = f"{node.name}:{output}:0"
    model.save()
    evidence = model.evidence()
    assert {len(variable["masked_reads"]) for variable in evidence["variables"]} == {2}
    masked = model.masked("a")[0]
    masked.consumers(masked.result)[0][0].input[1] = masked.raw_tensor()
    model.failure("to be masked, found the unmasked read")


def test_handles_beside_a_thousand_calls_in_a_row(mutant: Make) -> None:
    """The proof looks through each call for handles that it returns, without running out of stack."""
    model = mutant("shared", "select")
    for meta in model.edit_both():
        for function in meta.graph_def.library.function:
            calls = [n for n in function.node_def if n.op.endswith("PartitionedCall")]
            if len(calls) != 3:
                continue
            handle, previous = calls[0].input[1], calls[0]
            for number in range(1000):
                call = function.node_def.add()
                call.CopyFrom(calls[0])
                call.name = f"again_{number}"
                call.input[0], call.input[1] = f"{previous.name}:output:0", handle
                previous = call
            for output in function.ret:
                function.ret[output] = f"{previous.name}:output:0"
    model.save()
    assert model.evidence()["proven"]


def test_a_cycle_of_calls(mutant: Make) -> None:
    model = mutant("shared", "select")
    for meta in model.edit_both():
        for function in meta.graph_def.library.function:
            calls = [n for n in function.node_def if n.op.endswith("PartitionedCall")]
            if len(calls) == 3:
                calls[0].input[0] = f"{calls[0].name}:output:0"
    model.failure("expected no cycle of calls, found one")


def test_a_read_in_the_main_graph(mutant: Make) -> None:
    """A signature that reads without a function in between; the masked read is written by hand."""
    model = mutant("table", "select")
    masked = model.masked("w")[0]
    handle = next(n.name for n in model.meta.graph_def.node if n.op == "VarHandleOp")
    for meta in model.edit_both():
        read = meta.graph_def.node.add(name="direct", op="ReadVariableOp", input=[handle])
        read.attr["dtype"].type = types_pb2.DT_FLOAT
        signature = meta.signature_def["direct"]
        signature.outputs["value"].name = "direct:0"
        signature.outputs["value"].dtype = types_pb2.DT_FLOAT
    details = model.failure("output 'value' of signature 'direct' to be masked, found the unmasked read")
    assert (details["variable"], details["function"]) == ("w", "the main graph")

    graph = model.meta.graph_def
    for name, constant in (("mask", masked.mask), ("value", masked.value)):
        node = graph.node.add()
        node.CopyFrom(constant)
        node.name = name
    node = graph.node.add(name="masked", op="SelectV2", input=["mask", "direct", "value"])
    node.attr["T"].type = types_pb2.DT_FLOAT
    model.meta.signature_def["direct"].outputs["value"].name = "masked:0"
    model.save()
    reads = model.evidence()["variables"][0]["masked_reads"]
    assert {"function": "the main graph", "original_function": "the main graph"}.items() <= reads[-1].items()
