"""Models made to do harm by their graph, one at a time: each is refused in one line, in little time and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import graphfreeze
from graphfreeze.errors import UnsupportedError

from .lookup_model import change, refused


@pytest.mark.parametrize("selector", ["**", "a[0]", "a where w > 0"])
def test_absurd_shapes(model: Path, selector: str) -> None:
    def inflate(graph: Any) -> None:
        for node in graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "variable":
                node.variable.shape.dim[0].size = 2**40

    change(model, inflate)
    assert "but its value in" in refused(model, selector=selector)


def test_functions_that_call_themselves(model: Path) -> None:
    def recurse(graph: Any) -> None:
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if "f" in node.attr and len(node.input) == len(function.signature.input_arg):
                    node.attr["f"].func.name = function.signature.name

    change(model, recurse)
    assert "calls itself" in refused(model)


def test_contexts_without_number(model: Path) -> None:
    """Functions that hand ten variables on in two orders run with 10! orders of them, in the end."""
    names = [f"f{i}" for i in range(40)]

    def permute(graph: Any) -> None:
        library = graph.graph_def.library
        for name, callee in zip(names, [*names[1:], ""], strict=True):
            function = library.function.add()
            function.signature.name = name
            for i in range(10):
                function.signature.input_arg.add(name=f"x{i}", type=tf.resource.as_datatype_enum)
            for order in (range(10), [1, 0, *range(2, 10)], [*range(1, 10), 0]) if callee else ():
                node = function.node_def.add(name=f"call{len(function.node_def)}", op="StatefulPartitionedCall")
                node.input.extend(f"x{i}" for i in order)
                node.attr["f"].func.name = callee
        objects = graph.object_graph_def
        variable = next(n for n in objects.nodes if n.WhichOneof("kind") == "variable")
        first = len(objects.nodes)
        for i in range(10):
            objects.nodes[0].children.add(node_id=first + i, local_name=f"extra{i}")
            objects.nodes.add().CopyFrom(variable)
        objects.concrete_functions["f0"].bound_inputs.extend(range(first, first + 10))

    change(model, permute)
    assert "run with too many different variables" in str_of(lambda: graphfreeze.inspect(model))


def str_of(call: Callable[[], object]) -> str:
    with pytest.raises(UnsupportedError) as caught:
        call()
    return str(caught.value)


def test_objects_nested_without_end(model: Path) -> None:
    def nest(graph: Any) -> None:
        objects = graph.object_graph_def.nodes
        for _ in range(20000):
            parent = objects.add()
            parent.user_object.identifier = "_generic_user_object"
            parent.children.add(node_id=len(objects), local_name="child")
        objects.add().user_object.identifier = "_generic_user_object"
        objects[0].children.add(node_id=len(objects) - 20001, local_name="child")

    change(model, nest)
    assert "paths of its objects" in refused(model)


def test_garbage(model: Path) -> None:
    (model / "saved_model.pb").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    assert "not a SavedModel proto" in refused(model)


def two_handles(graph: Any) -> None:
    handles = [node.name for node in graph.graph_def.node if node.op == "VarHandleOp"]
    for node in graph.graph_def.node:
        if node.op == "StatefulPartitionedCall":
            for i, reference in enumerate(node.input):
                if reference in handles:
                    node.input[i] = handles[0]


def no_handle(graph: Any) -> None:
    for node in graph.graph_def.node:
        if node.op == "VarHandleOp":
            node.op = "Placeholder"


def other_dtype(graph: Any) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "ReadVariableOp":
                node.attr["dtype"].type = tf.float64.as_datatype_enum


@pytest.mark.parametrize(
    ("edit", "reason"),
    [(two_handles, "stands for another variable"), (no_handle, "something else"), (other_dtype, "as another dtype")],
)
def test_variables_that_are_not_what_they_seem(model: Path, edit: Callable[[Any], None], reason: str) -> None:
    change(model, edit)
    assert reason in refused(model, UnsupportedError)


def without_name(graph: Any) -> None:
    graph.graph_def.library.function[0].node_def[0].name = "elsewhere"


def twice(graph: Any) -> None:
    function = next(f for f in graph.graph_def.library.function if f.node_def)
    function.node_def.add().CopyFrom(function.node_def[0])


def function_twice(graph: Any) -> None:
    graph.graph_def.library.function.add().CopyFrom(graph.graph_def.library.function[0])


def without_value(graph: Any) -> None:
    graph.graph_def.node[0].attr["nothing"].SetInParent()


def constant_without_dtype(graph: Any) -> None:
    next(node for node in graph.graph_def.node if node.op == "Const").attr.pop("dtype")


def call_without_function(graph: Any) -> None:
    next(node for node in graph.graph_def.node if node.op == "StatefulPartitionedCall").attr.pop("f")


def call_of_nothing(graph: Any) -> None:
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            if "f" in node.attr:
                node.attr["f"].func.name = "missing"


def another_output_of_a_read(graph: Any) -> None:
    """What is no output of a read would not be seen to need a mask."""
    for function in graph.graph_def.library.function:
        reads = {node.name for node in function.node_def if node.op == "ReadVariableOp"}
        for node in function.node_def:
            for position, reference in enumerate(node.input):
                if reference.partition(":")[0] in reads:
                    node.input[position] = reference.replace(":value:", ":other:")


def unknown_dtype(graph: Any) -> None:
    for node in graph.object_graph_def.nodes:
        if node.WhichOneof("kind") == "variable":
            node.variable.dtype = 77


@pytest.mark.parametrize(
    "edit",
    [
        without_name,
        twice,
        function_twice,
        without_value,
        constant_without_dtype,
        call_without_function,
        call_of_nothing,
        another_output_of_a_read,
        unknown_dtype,
    ],
)
def test_references_that_do_not_fit(model: Path, edit: Callable[[Any], None]) -> None:
    change(model, edit)
    assert "is corrupt" in refused(model)
