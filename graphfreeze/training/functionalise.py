"""Turns a traced TensorFlow function into a functional graph.

Calls are inlined. A variable's value before the step becomes an input, its value after the step an output: reads yield
the current value, assignments replace it. While and If keep their bodies; a variable that a body touches becomes one
more loop variable, or one more argument and result of the branches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.attributes import SHAPES, SharedAttributes
from graphfreeze.training.graph import Edge, Graph, NamedGraph, Operation
from graphfreeze.training.lookup_tables import Resource, use_resource
from graphfreeze.training.operations import add_constant, add_operation
from graphfreeze.training.variable_uses import VARIABLE_USES, Handle, Item, VariableSlot, VariableState, VariableUse

__all__ = ["functionalise"]

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_WHILES = frozenset({"While", "StatelessWhile"})
_IFS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_IGNORED = frozenset({"NoOp", "Assert", "ControlTrigger", "DisableCopyOnRead"})


@dataclass(slots=True)
class _Body:
    """A function body with its nodes in execution order."""

    nodes: list[Any]
    arguments: list[str]
    returns: list[str]


def functionalise(
    function: Any, arguments: Sequence[str], results: Sequence[str], variables: Mapping[int, VariableSlot]
) -> NamedGraph:
    """Make the functional graph of a traced function.

    Args:
        function: A `ConcreteFunction`.
        arguments: Names for its flat tensor arguments, captures excluded.
        results: Names for its flat results.
        variables: The variables that it may capture, by the `id` of their handle tensor.

    Raises:
        UnsupportedError: It uses a resource that is neither a variable nor a lookup table of numbers, or uses one in
            a way that has no functional form.
    """
    graph_def = function.graph.as_graph_def(add_shapes=True)
    maker = _Functionaliser(function.graph, {f.signature.name: f for f in graph_def.library.function})
    graph = Graph()
    environment: dict[str, list[Item]] = {}
    own = len(function.inputs) - len(function.captured_inputs)
    for name, tensor in zip(arguments, function.inputs[:own], strict=True):
        edge = Edge(name, tensor.dtype, _static_shape(tensor.shape))
        graph.inputs.append(edge)
        environment[tensor.op.name] = [edge]
    for captured, tensor in zip(function.captured_inputs, function.inputs[own:], strict=True):
        if tensor.dtype == tf.resource:
            slot = variables.get(id(captured))
            environment[tensor.op.name] = [Resource(captured, tensor.name) if slot is None else Handle(slot)]
        else:
            environment[tensor.op.name] = [add_constant(graph, captured.numpy(), tensor.op.name)]
    state = VariableState()
    maker.run(graph, _sorted(n for n in graph_def.node if n.op != "Placeholder"), environment, state)
    for tensor in function.outputs:
        item = environment[tensor.op.name][tensor.value_index]
        assert isinstance(item, Edge)
        graph.outputs.append(item)
    graph.inputs += state.inputs.values()
    graph.outputs += [state.values[slot] for slot in state.written]
    graph.prune()
    return NamedGraph(
        graph,
        [*arguments, *(slot.name for slot in state.inputs)],
        [*results, *(f"new/{slot.name}" for slot in state.written)],
    )


class _Functionaliser:
    def __init__(self, outer: Any, library: Mapping[str, Any]) -> None:
        self.outer = outer
        self.library = library
        self.bodies: dict[str, _Body] = {}
        self.attributes = SharedAttributes()

    def run(self, graph: Graph, nodes: Sequence[Any], environment: dict[str, list[Item]], state: VariableState) -> None:
        for node in nodes:
            if node.name in environment or node.op in _IGNORED:
                continue
            inputs = [_lookup(environment, name) for name in node.input if name[0] != "^"]
            if node.op in _CALLS:
                environment[node.name] = self.call(graph, node.attr["f"].func.name, inputs, state)
            elif node.op in self.library:
                environment[node.name] = self.call(graph, node.op, inputs, state)
            elif node.op in _WHILES:
                environment[node.name] = self.loop(graph, node, inputs, state)
            elif node.op in _IFS:
                environment[node.name] = self.branch(graph, node, inputs, state)
            elif inputs and isinstance(inputs[0], Resource):
                edges = [item for item in inputs if isinstance(item, Edge)]
                passes = node.op == "Identity"
                environment[node.name] = [inputs[0]] if passes else [*use_resource(graph, node, inputs[0], edges)]
            elif any(isinstance(item, Handle) for item in inputs):
                environment[node.name] = self.use_variable(graph, node, inputs, state)
            else:
                edges = [item for item in inputs if isinstance(item, Edge)]
                environment[node.name] = list(self.add_node(graph, node, edges))

    def add_node(self, graph: Graph, node: Any, inputs: list[Edge]) -> list[Edge]:
        edges = add_operation(graph, node.op, node.name, inputs, self.attributes.of(node))
        # A loaded function may bring a list of its own, before the one that TensorFlow adds.
        shapes = list(node.attr[SHAPES].list.shape)[-len(edges) :] if SHAPES in node.attr else []
        if len(shapes) == len(edges):
            for edge, shape in zip(edges, shapes, strict=True):
                edge.shape = _static_shape(tf.TensorShape(shape))
        return edges

    # -- calls and control flow

    def body(self, name: str) -> _Body:
        if name not in self.bodies:
            definition = self.library[name]
            with self.outer.as_default():
                graph_def, names = function_def_to_graph.function_def_to_graph_def(definition)
            self.bodies[name] = _Body(
                _sorted(graph_def.node),
                [argument.name for argument in definition.signature.input_arg],
                [names[definition.ret[output.name]] for output in definition.signature.output_arg],
            )
        return self.bodies[name]

    def call(self, graph: Graph, name: str, inputs: Sequence[Item], state: VariableState) -> list[Item]:
        body = self.body(name)
        environment = {argument: [item] for argument, item in zip(body.arguments, inputs, strict=True)}
        self.run(graph, body.nodes, environment, state)
        return [_lookup(environment, name) for name in body.returns]

    def nested(self, name: str, inputs: Sequence[Item]) -> tuple[Graph, VariableState, list[Item]]:
        """The graph of a body for these kinds of arguments: an input for each tensor, none for a handle."""
        graph, state = Graph(), VariableState()
        arguments: list[Item] = []
        for item, argument in zip(inputs, self.body(name).arguments, strict=True):
            if isinstance(item, Edge):
                item = Edge(argument, item.dtype, None)
                graph.inputs.append(item)
            arguments.append(item)
        return graph, state, self.call(graph, name, arguments, state)

    def loop(self, graph: Graph, node: Any, inputs: Sequence[Item], state: VariableState) -> list[Item]:
        cond, cond_state, (predicate,) = self.nested(node.attr["cond"].func.name, inputs)
        body, body_state, results = self.nested(node.attr["body"].func.name, inputs)
        for before, after in zip(inputs, results, strict=True):
            if not isinstance(before, Edge) and before != after:
                raise UnsupportedError(f"the loop {node.name!r} changes which variable a handle stands for")
        assert isinstance(predicate, Edge)
        cond.outputs = [predicate]
        body.outputs = [item for item in results if isinstance(item, Edge)]
        slots = list(dict.fromkeys([*cond_state.inputs, *body_state.inputs]))
        if cond_state.written:
            raise UnsupportedError(f"the condition of the loop {node.name!r} assigns a variable")
        for slot in slots:
            cond.inputs.append(cond_state.read(slot))
            body.inputs.append(_input_of(body_state, slot))
            body.outputs.append(body_state.read(slot))
        operation = Operation(node.op, node.name, [item for item in inputs if isinstance(item, Edge)])
        operation.inputs += [state.read(slot) for slot in slots]
        operation.bodies = {"cond": cond, "body": body}
        operation.outputs = [Edge(node.name, edge.dtype, edge.shape, operation) for edge in operation.inputs]
        graph.operations.append(operation)
        for slot, output in zip(slots, operation.outputs[len(operation.outputs) - len(slots) :], strict=True):
            if slot in body_state.written:
                state.write(slot, output)
        outputs = iter(operation.outputs)
        return [next(outputs) if isinstance(item, Edge) else item for item in inputs]

    def branch(self, graph: Graph, node: Any, inputs: Sequence[Item], state: VariableState) -> list[Item]:
        if node.op in ("If", "StatelessIf"):
            names = {key: node.attr[key].func.name for key in ("then_branch", "else_branch")}
        else:
            names = {f"branch_{i}": f.name for i, f in enumerate(node.attr["branches"].list.func)}
        made = {key: self.nested(name, inputs[1:]) for key, name in names.items()}
        slots = list(dict.fromkeys(slot for _, inner, _ in made.values() for slot in inner.inputs))
        written = [slot for slot in slots if any(slot in inner.written for _, inner, _ in made.values())]
        operation = Operation(node.op, node.name, [item for item in inputs if isinstance(item, Edge)])
        operation.inputs += [state.read(slot) for slot in slots]
        for key, (body, inner, results) in made.items():
            if any(not isinstance(item, Edge) for item in results):
                raise UnsupportedError(f"a branch of {node.name!r} returns a variable's handle")
            body.outputs = [item for item in results if isinstance(item, Edge)]
            body.inputs += [_input_of(inner, slot) for slot in slots]
            body.outputs += [inner.read(slot) for slot in written]
            operation.bodies[key] = body
        first = next(iter(operation.bodies.values()))
        operation.outputs = [Edge(node.name, edge.dtype, edge.shape, operation) for edge in first.outputs]
        graph.operations.append(operation)
        split = len(operation.outputs) - len(written)
        for slot, output in zip(written, operation.outputs[split:], strict=True):
            state.write(slot, output)
        return list(operation.outputs[:split])

    def use_variable(self, graph: Graph, node: Any, inputs: Sequence[Item], state: VariableState) -> list[Item]:
        use = VARIABLE_USES.get(node.op)
        handle, *rest = inputs
        if use is None or not isinstance(handle, Handle):
            named = next(item.slot.name for item in inputs if isinstance(item, Handle))
            raise UnsupportedError(
                f"the operation {node.op} ({node.name!r}) uses the variable {named!r} in a way that has no functional "
                f"form yet; known uses are {', '.join(sorted(VARIABLE_USES))}"
            )
        return use(VariableUse(graph, node, handle, [item for item in rest if isinstance(item, Edge)], state))


def _input_of(state: VariableState, slot: VariableSlot) -> Edge:
    state.read(slot)
    return state.inputs[slot]


def _lookup(environment: Mapping[str, list[Item]], reference: str) -> Item:
    name, _, index = reference.partition(":")
    return environment[name][int(index) if index else 0]


def _static_shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())


def _sorted(nodes: Iterable[Any]) -> list[Any]:
    """Nodes in an order that respects data and control edges, otherwise as they came."""
    by_name = {node.name: node for node in nodes}
    done: set[str] = set()
    order: list[Any] = []
    for root in by_name.values():
        stack = [(root, iter(root.input))]
        if root.name in done:
            continue
        done.add(root.name)
        while stack:
            node, pending = stack[-1]
            for reference in pending:
                name = reference.lstrip("^").partition(":")[0]
                if name in by_name and name not in done:
                    done.add(name)
                    stack.append((by_name[name], iter(by_name[name].input)))
                    break
            else:
                order.append(node)
                stack.pop()
    return order
