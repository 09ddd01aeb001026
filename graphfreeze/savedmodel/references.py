"""The references within a SavedModel: whether what its parts name is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow.python.framework import op_def_registry

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.node_references import broken_graph

__all__ = ["broken_objects", "check_operations", "check_references"]

_VARIABLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})


def check_references(meta_graph: meta_graph_pb2.MetaGraphDef, directory: Path) -> None:
    """Check the references on which everything else relies, so that it need not.

    Args:
        meta_graph: The graph.
        directory: Where it comes from, for the message.

    Raises:
        ModelReadError: An object, function or argument is named that is not there.
    """
    broken = next(_broken(meta_graph), None)
    if broken is not None:
        raise ModelReadError(f"{directory / 'saved_model.pb'} is corrupt: {broken}. Export the model again.")


def check_operations(graph: Any, directory: Path) -> None:
    """Check that the operations around variables in a graph of TensorFlow 1 have all that they are defined with.

    Args:
        graph: The GraphDef.
        directory: Where it comes from, for the message.

    Raises:
        ModelReadError: An input or a type is missing.
    """
    for node in graph.node:
        definition = op_def_registry.get(node.op)
        if definition is None or any(a.number_attr or a.type_list_attr for a in definition.input_arg):
            continue
        given = sum(not reference.startswith("^") for reference in node.input)
        typed = node.op not in _VARIABLES or ("dtype" in node.attr and node.attr["dtype"].type)
        typed = typed and all(
            attribute.name in node.attr or attribute.type != "type" or attribute.HasField("default_value")
            for attribute in definition.attr
        )
        if given != len(definition.input_arg) or not typed:
            raise ModelReadError(
                f"{directory / 'saved_model.pb'} is corrupt: node {node.name!r} has {given} inputs and is no whole "
                f"{node.op}, which has {len(definition.input_arg)} and its types. Export the model again."
            )


def broken_objects(nodes: Any) -> str:
    """What is wrong with the first object that names another one that is missing; empty where none does.

    Args:
        nodes: The nodes of an object graph, the SavedModel's or its checkpoint's.
    """
    for i, node in enumerate(nodes):
        named = [child.node_id for child in node.children]
        for slot in node.slot_variables:
            named += [slot.original_variable_node_id, slot.slot_variable_node_id]
        missing = next((n for n in named if not 0 <= n < len(nodes)), None)
        if missing is not None:
            return f"object {i} names object {missing}, which is missing"
    return ""


def _broken(meta_graph: Any) -> Iterator[str]:
    graph = meta_graph.object_graph_def
    functions = {function.signature.name: function for function in meta_graph.graph_def.library.function}
    yield from filter(None, [broken_objects(graph.nodes)])
    for i, node in enumerate(graph.nodes):
        saveables = node.saveable_objects.values()
        named = [n for saveable in saveables for n in (saveable.save_function, saveable.restore_function)]
        yield from (f"object {i} names object {n}, which is missing" for n in named if not 0 <= n < len(graph.nodes))
    for name, concrete in graph.concrete_functions.items():
        if name not in functions:
            yield f"the object graph names function {name!r}, which is missing"
        elif len(concrete.bound_inputs) > len(functions[name].signature.input_arg):
            yield f"function {name!r} captures more objects than it has arguments"
        yield from (
            f"function {name!r} captures object {n}, which is missing"
            for n in concrete.bound_inputs
            if not 0 <= n < len(graph.nodes)
        )
    yield from broken_graph(meta_graph.graph_def)
