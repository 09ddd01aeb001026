"""The references between the nodes of a graph: whether every name is there, once, and every call has what it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tensorflow.core.framework import types_pb2

from graphfreeze.savedmodel.call_sites import CALLS, CASES, CONDITIONALS, LOOPS, call_slots

__all__ = ["broken_graph"]

_Functions = Mapping[str, Any]

_CALLEES = {
    **dict.fromkeys(CALLS, ("f",)),
    **dict.fromkeys(LOOPS, ("cond", "body")),
    **dict.fromkeys(CONDITIONALS, ("then_branch", "else_branch")),
    **dict.fromkeys(CASES, ("branches",)),
}

_READS = {"ReadVariableOp": "value:0", "ResourceGather": "output:0", "ResourceGatherNd": "output:0"}
"""What reads variables, and what its only output is called in a function: another one would not be seen as a read."""


def broken_graph(graph: Any) -> Iterator[str]:
    """What does not fit together in a GraphDef and its library of functions.

    The operations themselves are TensorFlow's matter: their definitions are not looked at.

    Args:
        graph: The GraphDef.

    Yields:
        One description for each thing, without a full stop.
    """
    functions: dict[str, Any] = {function.signature.name: function for function in graph.library.function}
    twice = _twice(function.signature.name for function in graph.library.function)
    yield from (f"two functions have the name {name!r}" for name in twice)
    for name, function in functions.items():
        arguments = [argument.name for argument in function.signature.input_arg]
        yield from _broken_names(function.node_def, arguments, f"function {name!r}")
        yield from _broken_returns(function, set(arguments), f"function {name!r}")
        for node in function.node_def:
            yield from _broken_node(node, functions, f"function {name!r}")
    yield from _broken_names(graph.node, None, "the main graph")
    for node in graph.node:
        yield from _broken_node(node, functions, "the main graph")
    yield from _cycles(functions)


def _twice(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _broken_names(nodes: Any, arguments: list[str] | None, where: str) -> Iterator[str]:
    """Names that occur twice, and inputs that name nothing. The main graph has no arguments: None."""
    twice = _twice([*_names(nodes), *(arguments or ())])
    yield from (f"{where} has two nodes or arguments named {name!r}" for name in twice)
    known = {node.name: node.op for node in nodes}
    taken = None if arguments is None else set(arguments)
    for node in nodes:
        for reference in node.input:
            if not _exists(reference, known, taken):
                yield f"node {node.name!r} in {where} takes {reference!r}, which is missing"


def _names(nodes: Any) -> list[str]:
    return [node.name for node in nodes]


def _exists(reference: str, nodes: Mapping[str, str], arguments: set[str] | None) -> bool:
    """Whether an input names a node, or an argument: in a function, that is the only kind of name without a colon."""
    if reference.startswith("^"):
        return reference[1:] in nodes or (arguments is not None and reference[1:] in arguments)
    name, colon, rest = reference.partition(":")
    if arguments is None:
        return name in nodes and (not colon or rest.isdecimal())
    if not colon:
        return name in arguments
    _, colon, index = rest.partition(":")
    if nodes.get(name) in _READS and rest not in (_READS[nodes[name]], _READS[nodes[name]].removesuffix(":0")):
        return False
    return name in nodes and (not colon or index.isdecimal())


def _broken_returns(function: Any, arguments: set[str], where: str) -> Iterator[str]:
    nodes = {node.name: node.op for node in function.node_def}
    for output in function.signature.output_arg:
        if output.name not in function.ret:
            yield f"{where} returns nothing as {output.name!r}"
    for name, reference in function.ret.items():
        if reference.startswith("^") or not _exists(reference, nodes, arguments):
            yield f"{where} returns {reference!r} as {name!r}, which is missing"
    for name, node in function.control_ret.items():
        if node not in nodes:
            yield f"{where} waits for node {node!r} under the name {name!r}, which is missing"


def _broken_node(node: Any, functions: _Functions, where: str) -> Iterator[str]:
    for name, value in node.attr.items():
        if value.WhichOneof("value") is None:
            yield f"attribute {name!r} of node {node.name!r} in {where} has no value"
    if node.op == "Const" and not _is_constant(node):
        yield f"constant {node.name!r} in {where} has no value or no dtype"
    missing = [name for name in _CALLEES.get(node.op, ()) if not _callees(node, name)]
    if missing:
        yield f"node {node.name!r} in {where} is a call without {missing[0]!r}"
    yield from (
        f"node {node.name!r} in {where} calls function {callee!r}, which is missing"
        for attribute in _CALLEES.get(node.op, ())
        for callee in _callees(node, attribute)
        if callee not in functions
    )
    shift = 1 if node.op in CONDITIONALS or node.op in CASES or node.op == "TPUPartitionedCall" else 0
    given = sum(not reference.startswith("^") for reference in node.input) - shift
    for slot in call_slots(node, functions):
        if slot.attribute == "" or slot.attribute in _CALLEES.get(node.op, ()):
            taken = len(functions[slot.callee].signature.input_arg)
            if given != taken and not _takes_lists(functions[slot.callee]):
                yield (
                    f"node {node.name!r} in {where} calls function {slot.callee!r} with {given} arguments "
                    f"instead of {taken}"
                )


def _is_constant(node: Any) -> bool:
    return (
        "value" in node.attr
        and node.attr["value"].WhichOneof("value") == "tensor"
        and "dtype" in node.attr
        and node.attr["dtype"].type in types_pb2.DataType.values()
        and node.attr["dtype"].type == node.attr["value"].tensor.dtype
    )


def _callees(node: Any, attribute: str) -> list[str]:
    """The functions that an attribute of a node names, whether they are there or not."""
    if attribute not in node.attr:
        return []
    value = node.attr[attribute]
    names = [value.func.name] if value.WhichOneof("value") == "func" else [item.name for item in value.list.func]
    return [name for name in names if name]


def _takes_lists(function: Any) -> bool:
    return any(argument.number_attr or argument.type_list_attr for argument in function.signature.input_arg)


def _cycles(functions: _Functions) -> Iterator[str]:
    """A function that calls itself, through others or not: TensorFlow cannot load it, and it would never end."""
    calls = {
        name: sorted({slot.callee for node in function.node_def for slot in call_slots(node, functions)})
        for name, function in functions.items()
    }
    done: set[str] = set()
    for start in calls:
        # A depth-first walk; `path` holds the functions that are open, as a chain of calls.
        path: dict[str, Iterator[str]] = {} if start in done else {start: iter(calls[start])}
        while path:
            name = next(reversed(path))
            callee = next(path[name], None)
            if callee is None:
                done.add(name)
                del path[name]
            elif callee in path:
                yield f"function {callee!r} calls itself" + ("" if callee == name else f", through {name!r}")
                return
            elif callee not in done:
                path[callee] = iter(calls[callee])
