"""Turns a traced TensorFlow function into a functional graph.

Calls are inlined. A variable's value before the step becomes an input, its value after the step an output: reads yield
the current value, assignments replace it. While and If keep their bodies; a variable that a body touches becomes one
more loop variable, or one more argument and result of the branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.framework import function_def_to_graph, op_def_registry

from graphfreeze.errors import UnsupportedError
from graphfreeze.training.graph import Edge, Graph, Operation

__all__ = ["VARIABLE_USES", "NamedGraph", "VariableSlot", "compose", "functionalise"]

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_WHILES = frozenset({"While", "StatelessWhile"})
_IFS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_IGNORED = frozenset({"NoOp", "Assert", "ControlTrigger", "DisableCopyOnRead"})


@dataclass(frozen=True, slots=True)
class VariableSlot:
    """A variable of the traced function: the name it gets in the functional graph, its dtype and shape."""

    name: str
    dtype: Any
    shape: tuple[int, ...]


@dataclass(slots=True)
class NamedGraph:
    """A functional graph whose inputs and outputs have names.

    Attributes:
        graph: The graph.
        inputs: The names of `graph.inputs`: the function's arguments, then the variables in order of first use.
        outputs: The names of `graph.outputs`: the function's results, then `new/NAME` for every assigned variable.
    """

    graph: Graph
    inputs: list[str]
    outputs: list[str]


@dataclass(frozen=True, slots=True)
class _Handle:
    """A resource handle: which variable it stands for."""

    slot: VariableSlot


_Item = Edge | _Handle


@dataclass(slots=True)
class _State:
    """What each variable holds at this point of one graph. A variable met for the first time becomes an input."""

    inputs: dict[VariableSlot, Edge] = field(default_factory=dict)
    values: dict[VariableSlot, Edge] = field(default_factory=dict)
    written: dict[VariableSlot, None] = field(default_factory=dict)

    def read(self, slot: VariableSlot) -> Edge:
        if slot not in self.values:
            self.values[slot] = self.inputs[slot] = Edge(slot.name, slot.dtype, slot.shape)
        return self.values[slot]

    def write(self, slot: VariableSlot, value: Edge) -> None:
        self.read(slot)
        self.values[slot] = value
        self.written[slot] = None


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
        UnsupportedError: It captures a resource that is no variable, or uses a variable in a way that has no
            functional form.
    """
    graph_def = function.graph.as_graph_def()
    maker = _Functionaliser(function.graph, {f.signature.name: f for f in graph_def.library.function})
    graph = Graph()
    environment: dict[str, list[_Item]] = {}
    own = len(function.inputs) - len(function.captured_inputs)
    for name, tensor in zip(arguments, function.inputs[:own], strict=True):
        edge = Edge(name, tensor.dtype, _static_shape(tensor.shape))
        graph.inputs.append(edge)
        environment[tensor.op.name] = [edge]
    for captured, tensor in zip(function.captured_inputs, function.inputs[own:], strict=True):
        if tensor.dtype == tf.resource:
            slot = variables.get(id(captured))
            if slot is None:
                raise UnsupportedError(
                    f"the training step captures the resource {tensor.name!r}, which is no variable (a lookup table, "
                    "an iterator): only variables can become state of an ONNX graph; choose an endpoint without it"
                )
            environment[tensor.op.name] = [_Handle(slot)]
        else:
            environment[tensor.op.name] = [maker.constant(graph, captured.numpy(), tensor.op.name)]
    state = _State()
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


def compose(first: NamedGraph, second: NamedGraph) -> NamedGraph:
    """One graph that runs `first`, then `second` on its results.

    An input of `second` that `first` has as an output of that name, or as `new/NAME`, takes it from there; the others
    are shared by name. The outputs are those of `second` after those of `first` that `second` did not take. Neither
    graph is changed.
    """
    made = dict(zip(first.outputs, first.graph.outputs, strict=True))
    shared = dict(zip(first.inputs, first.graph.inputs, strict=True))
    renamed: dict[int, Edge] = {}
    taken: set[str] = set()
    for name, edge in zip(second.inputs, second.graph.inputs, strict=True):
        source = next((key for key in (name, f"new/{name}") if key in made), None)
        if source is not None:
            renamed[id(edge)] = made[source]
            taken.add(name)
        else:
            renamed[id(edge)] = shared.setdefault(name, edge)
    operations = list(first.graph.operations)
    for operation in second.graph.operations:
        inputs = [renamed.get(id(edge), edge) for edge in operation.inputs]
        copied = Operation(operation.type, operation.name, inputs, [], operation.attributes, operation.bodies)
        copied.outputs = [Edge(edge.name, edge.dtype, edge.shape, copied) for edge in operation.outputs]
        renamed.update(zip(map(id, operation.outputs), copied.outputs, strict=True))
        operations.append(copied)
    results = {name: edge for name, edge in made.items() if name not in taken}
    for name, edge in zip(second.outputs, second.graph.outputs, strict=True):
        results[name] = renamed.get(id(edge), edge)
    graph = Graph(list(shared.values()), operations, list(results.values()))
    return NamedGraph(graph, list(shared), list(results))


class _Functionaliser:
    def __init__(self, outer: Any, library: Mapping[str, Any]) -> None:
        self.outer = outer
        self.library = library
        self.bodies: dict[str, _Body] = {}

    def run(self, graph: Graph, nodes: Sequence[Any], environment: dict[str, list[_Item]], state: _State) -> None:
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
            elif any(isinstance(item, _Handle) for item in inputs):
                environment[node.name] = self.use_variable(graph, node, inputs, state)
            else:
                edges = [item for item in inputs if isinstance(item, Edge)]
                environment[node.name] = list(self.operation(graph, node, edges).outputs)

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

    def call(self, graph: Graph, name: str, inputs: Sequence[_Item], state: _State) -> list[_Item]:
        body = self.body(name)
        environment = {argument: [item] for argument, item in zip(body.arguments, inputs, strict=True)}
        self.run(graph, body.nodes, environment, state)
        return [_lookup(environment, name) for name in body.returns]

    def nested(self, name: str, inputs: Sequence[_Item]) -> tuple[Graph, _State, list[_Item]]:
        """The graph of a body for these kinds of arguments: an input for each tensor, none for a handle."""
        graph, state = Graph(), _State()
        arguments: list[_Item] = []
        for item, argument in zip(inputs, self.body(name).arguments, strict=True):
            if isinstance(item, Edge):
                item = Edge(argument, item.dtype, None)
                graph.inputs.append(item)
            arguments.append(item)
        return graph, state, self.call(graph, name, arguments, state)

    def loop(self, graph: Graph, node: Any, inputs: Sequence[_Item], state: _State) -> list[_Item]:
        cond, cond_state, (predicate,) = self.nested(node.attr["cond"].func.name, inputs)
        body, body_state, results = self.nested(node.attr["body"].func.name, inputs)
        for before, after in zip(inputs, results, strict=True):
            if isinstance(before, _Handle) and before != after:
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
        return [item if isinstance(item, _Handle) else next(outputs) for item in inputs]

    def branch(self, graph: Graph, node: Any, inputs: Sequence[_Item], state: _State) -> list[_Item]:
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
            if any(isinstance(item, _Handle) for item in results):
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

    # -- operations

    def operation(self, graph: Graph, node: Any, inputs: list[Edge]) -> Operation:
        return self.add(graph, node.op, node.name, inputs, dict(node.attr))

    def add(
        self, graph: Graph, op_type: str, name: str, inputs: list[Edge], attributes: Mapping[str, Any]
    ) -> Operation:
        operation = Operation(op_type, name, inputs, attributes=dict(attributes))
        operation.outputs = [Edge(name, dtype, None, operation) for dtype in _output_dtypes(op_type, attributes)]
        graph.operations.append(operation)
        return operation

    def constant(self, graph: Graph, array: Any, name: str) -> Edge:
        value = attr_value_pb2.AttrValue(tensor=tf.make_tensor_proto(array))
        dtype = attr_value_pb2.AttrValue(type=value.tensor.dtype)
        return self.add(graph, "Const", name, [], {"value": value, "dtype": dtype}).outputs[0]

    def use_variable(self, graph: Graph, node: Any, inputs: Sequence[_Item], state: _State) -> list[_Item]:
        use = VARIABLE_USES.get(node.op)
        handle, *rest = inputs
        if use is None or not isinstance(handle, _Handle):
            named = next(item.slot.name for item in inputs if isinstance(item, _Handle))
            raise UnsupportedError(
                f"the operation {node.op} ({node.name!r}) uses the variable {named!r} in a way that has no functional "
                f"form yet; known uses are {', '.join(sorted(VARIABLE_USES))}"
            )
        return use(_Use(self, graph, node, handle, [item for item in rest if isinstance(item, Edge)], state))


# -- uses of variables: what each operation on a handle means for the value


@dataclass(slots=True)
class _Use:
    maker: _Functionaliser
    graph: Graph
    node: Any
    handle: _Handle
    inputs: list[Edge]
    state: _State

    @property
    def value(self) -> Edge:
        return self.state.read(self.handle.slot)

    def emit(self, op_type: str, inputs: list[Edge], **types: Any) -> Edge:
        attributes = {
            name: attr_value_pb2.AttrValue(type=tf.as_dtype(dtype).as_datatype_enum) for name, dtype in types.items()
        }
        return self.maker.add(self.graph, op_type, self.node.name, inputs, attributes).outputs[0]

    def number(self, value: Any, suffix: str) -> Edge:
        return self.maker.constant(self.graph, value, f"{self.node.name}/{suffix}")


def _read(use: _Use) -> list[_Item]:
    return [use.value]


def _pass_handle(use: _Use) -> list[_Item]:
    return [use.handle]


def _assign(use: _Use) -> list[_Item]:
    use.state.write(use.handle.slot, use.inputs[0])
    return []


def _assign_by(op_type: str) -> Callable[[_Use], list[_Item]]:
    def apply(use: _Use) -> list[_Item]:
        new = use.emit(op_type, [use.value, use.inputs[0]], T=use.handle.slot.dtype)
        use.state.write(use.handle.slot, new)
        return []

    return apply


def _gather(use: _Use) -> list[_Item]:
    indices = use.inputs[0]
    batch_dims = use.node.attr["batch_dims"].i if "batch_dims" in use.node.attr else 0
    axis = use.number(np.int32(batch_dims), "axis")
    types = {"Tparams": use.handle.slot.dtype, "Tindices": indices.dtype, "Taxis": tf.int32}
    edge = use.emit("GatherV2", [use.value, indices, axis], **types)
    if batch_dims:
        assert edge.producer is not None
        edge.producer.attributes["batch_dims"] = attr_value_pb2.AttrValue(i=batch_dims)
    return [edge]


def _gather_nd(use: _Use) -> list[_Item]:
    types = {"Tparams": use.handle.slot.dtype, "Tindices": use.inputs[0].dtype}
    return [use.emit("GatherNd", [use.value, use.inputs[0]], **types)]


def _scatter(op_type: str) -> Callable[[_Use], list[_Item]]:
    def apply(use: _Use) -> list[_Item]:
        indices, updates = use.inputs
        last = use.number(np.int32(-1), "axis")
        rows = use.emit("ExpandDims", [indices, last], T=indices.dtype, Tdim=tf.int32)
        new = use.emit(op_type, [use.value, rows, updates], T=use.handle.slot.dtype, Tindices=indices.dtype)
        use.state.write(use.handle.slot, new)
        return []

    return apply


def _shape(use: _Use) -> list[_Item]:
    dtype = tf.as_dtype(use.node.attr["out_type"].type) if "out_type" in use.node.attr else tf.int32
    return [use.number(np.array(use.handle.slot.shape, dtype.as_numpy_dtype), "shape")]


def _is_initialized(use: _Use) -> list[_Item]:
    return [use.number(np.bool_(True), "initialized")]


VARIABLE_USES: dict[str, Callable[[_Use], list[_Item]]] = {
    "AssignAddVariableOp": _assign_by("AddV2"),
    "AssignSubVariableOp": _assign_by("Sub"),
    "AssignVariableOp": _assign,
    "Identity": _pass_handle,
    "ReadVariableOp": _read,
    "ResourceGather": _gather,
    "ResourceGatherNd": _gather_nd,
    "ResourceScatterAdd": _scatter("TensorScatterAdd"),
    "ResourceScatterSub": _scatter("TensorScatterSub"),
    "ResourceScatterUpdate": _scatter("TensorScatterUpdate"),
    "VarIsInitializedOp": _is_initialized,
    "VariableShape": _shape,
}


# -- helpers


def _input_of(state: _State, slot: VariableSlot) -> Edge:
    state.read(slot)
    return state.inputs[slot]


def _lookup(environment: Mapping[str, list[_Item]], reference: str) -> _Item:
    name, _, index = reference.partition(":")
    return environment[name][int(index) if index else 0]


def _static_shape(shape: Any) -> tuple[int | None, ...] | None:
    return None if shape.rank is None else tuple(shape.as_list())


def _output_dtypes(op_type: str, attributes: Mapping[str, Any]) -> list[Any]:
    definition = op_def_registry.get(op_type)
    if definition is None:
        raise UnsupportedError(f"the operation {op_type} is not registered in this TensorFlow: load its library first")
    defaults = {a.name: a.default_value for a in definition.attr}
    dtypes: list[Any] = []
    for output in definition.output_arg:
        if output.type_list_attr:
            value = attributes.get(output.type_list_attr, defaults[output.type_list_attr])
            dtypes += [tf.as_dtype(item) for item in value.list.type]
            continue
        dtype = output.type or attributes.get(output.type_attr, defaults.get(output.type_attr)).type
        number = attributes.get(output.number_attr, defaults[output.number_attr]).i if output.number_attr else 1
        dtypes += [tf.as_dtype(dtype)] * number
    return dtypes


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
