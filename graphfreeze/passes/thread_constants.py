"""Masks and frozen values as variables: their handles reach the functions that read them as further arguments.

The functions hold a placeholder for each such constant, a Const that names it. Here,

- the object graph gets a child `graphfreeze` of the root with one variable for each constant, which does not train;
- a function that needs constants, itself or in what it calls, gets an argument for each, after those that it has, and
  every call passes them on; a loop's body hands them on too;
- concrete functions capture the variables, and calls of the main graph, which sessions run, take handles made there;
- sessions restore and save the variables with the others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tensorflow.core.framework import function_pb2, node_def_pb2, types_pb2
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from graphfreeze.errors import UnsupportedError
from graphfreeze.passes.session_saver import extend_saver
from graphfreeze.passes.storage import StoredConstant, StoredVariable, placeholder_number
from graphfreeze.savedmodel.call_sites import LOOPS, call_slots, forwards_arguments

__all__ = ["thread_constants"]

_CHILD = "graphfreeze"


def thread_constants(
    proto: saved_model_pb2.SavedModel,
    constants: Sequence[StoredConstant],
    objects: Callable[[], trackable_object_graph_pb2.TrackableObjectGraph],
) -> tuple[StoredVariable, ...]:
    """Turn the placeholders of a rewritten model into reads of variables.

    Args:
        proto: The rewritten model; it is changed.
        constants: The constants by number.
        objects: Reads the object graph in the original's checkpoint, which sessions save again.

    Returns:
        The variables, which are in the object graph but not in the checkpoint yet.

    Raises:
        UnsupportedError: A function that needs them is called in a way that passes no arguments.
    """
    if not constants:
        return ()
    return _Threader(proto, constants, objects()).run()


class _Threader:
    def __init__(
        self,
        proto: saved_model_pb2.SavedModel,
        constants: Sequence[StoredConstant],
        objects: trackable_object_graph_pb2.TrackableObjectGraph,
    ) -> None:
        self.meta: Any = proto.meta_graphs[0]
        self.library = {f.signature.name: f for f in self.meta.graph_def.library.function}
        self.constants = constants
        self.objects = objects
        self.needs = self._needs()
        self.arguments: dict[str, dict[int, str]] = {}

    def run(self) -> tuple[StoredVariable, ...]:
        variables = self._add_objects()
        for name in sorted(self.needs):
            self._add_arguments(self.library[name])
        for name in sorted(self.needs):
            function = self.library[name]
            self._pass_on(function.node_def, self.arguments[name])
            self._read(function)
        for name in sorted(self.needs):
            if name in self.meta.object_graph_def.concrete_functions:
                captures = self.meta.object_graph_def.concrete_functions[name].bound_inputs
                captures.extend(variables[number].node for number in self.needs[name])
        self._main_graph(variables)
        return variables

    # Which function needs which constants.

    def _needs(self) -> dict[str, tuple[int, ...]]:
        """Function -> numbers of the constants that it or what it calls reads, sorted."""
        own: dict[str, set[int]] = defaultdict(set)
        callers: dict[str, set[str]] = defaultdict(set)
        alike: dict[str, set[str]] = defaultdict(set)
        for name, function in self.library.items():
            for node in function.node_def:
                number = placeholder_number(node)
                if number is not None:
                    own[name].add(number)
                callees = [slot.callee for slot in call_slots(node, self.library)]
                for callee in callees:
                    callers[callee].add(name)
                    # What one node calls gets the same arguments: branches, and a loop's body and condition.
                    alike[callee].update(callees)
        for node in self.meta.graph_def.node:
            callees = [slot.callee for slot in call_slots(node, self.library)]
            for callee in callees:
                alike[callee].update(callees)
        pending = sorted(own)
        while pending:
            name = pending.pop()
            for other in sorted(callers[name] | alike[name]):
                if not own[name] <= own[other]:
                    own[other] |= own[name]
                    pending.append(other)
        return {name: tuple(sorted(numbers)) for name, numbers in own.items() if numbers}

    # The object graph.

    def _add_objects(self) -> tuple[StoredVariable, ...]:
        graph = self.meta.object_graph_def
        taken = {child.local_name for child in graph.nodes[0].children}
        child = next(name for n in range(len(taken) + 1) if (name := f"{_CHILD}_{n}" if n else _CHILD) not in taken)
        graph.nodes[0].children.add(node_id=len(graph.nodes), local_name=child)
        holder = graph.nodes.add()
        holder.user_object.identifier = "_generic_user_object"
        holder.user_object.version.producer = 1
        holder.user_object.version.min_consumer = 1
        main = {node.name for node in self.meta.graph_def.node}
        variables = []
        for number, constant in enumerate(self.constants):
            local = f"{constant.role}_{number}"
            name = f"{child}/{local}"
            while name in main:
                name += "_"
            holder.children.add(node_id=len(graph.nodes), local_name=local)
            variables.append(StoredVariable(constant, len(graph.nodes), name, (child, local)))
            node = graph.nodes.add().variable
            node.dtype = constant.proto_dtype
            node.name = name
            node.trainable = False
            for size in constant.shape:
                node.shape.dim.add(size=size)
            if not constant.shape:
                node.shape.SetInParent()
        return tuple(variables)

    # Functions.

    def _add_arguments(self, function: function_pb2.FunctionDef) -> None:
        signature = function.signature
        taken = {argument.name for argument in signature.input_arg} | {node.name for node in function.node_def}
        self.arguments[signature.name] = {}
        for number in self.needs[signature.name]:
            name = f"graphfreeze_constant_{number}"
            while name in taken:
                name += "_"
            self.arguments[signature.name][number] = name
            argument = signature.input_arg.add(name=name, type=types_pb2.DT_RESOURCE)
            data = argument.handle_data.add(dtype=self.constants[number].proto_dtype)
            for size in self.constants[number].shape:
                data.shape.dim.add(size=size)
        if "_input_shapes" in function.attr:
            shapes = function.attr["_input_shapes"].list.shape
            while len(shapes) < len(signature.input_arg):
                shapes.add()

    def _read(self, function: function_pb2.FunctionDef) -> None:
        """Let reads of the arguments take the placeholders' places."""
        names = {}
        for node in function.node_def:
            number = placeholder_number(node)
            if number is not None:
                dtype = node.attr["dtype"].type
                node.op = "ReadVariableOp"
                del node.attr["value"]
                node.attr["dtype"].type = dtype
                node.input.append(self.arguments[function.signature.name][number])
                names[f"{node.name}:output:0"] = f"{node.name}:value:0"
        for node in function.node_def:
            for position, reference in enumerate(node.input):
                if reference in names:
                    node.input[position] = names[reference]

    def _pass_on(self, nodes: Iterable[node_def_pb2.NodeDef], handles: Mapping[int, str]) -> None:
        for node in list(nodes):
            slots = list(call_slots(node, self.library))
            needed = next((self.needs[s.callee] for s in slots if s.callee in self.needs), ())
            if not needed:
                continue
            unknown = [slot for slot in slots if slot.callee in self.needs and not forwards_arguments(node, slot)]
            if unknown:
                raise UnsupportedError(
                    f"Function {unknown[0].callee!r} needs masks that are too large for the graph, and {node.op} "
                    f"{node.name!r} calls it in a way that cannot pass them. Freeze fewer elements, or whole rows or "
                    "columns: their masks are small."
                )
            data = [reference for reference in node.input if not reference.startswith("^")]
            control = list(node.input[len(data) :])
            del node.input[:]
            node.input.extend([*data, *(handles[number] for number in needed), *control])
            self._extend_attributes(node, len(data), len(needed))
            if node.op in LOOPS:
                for slot in slots:
                    if slot.attribute == "body":
                        self._hand_on(self.library[slot.callee])

    def _extend_attributes(self, node: node_def_pb2.NodeDef, first: int, count: int) -> None:
        types = "T" if node.op in LOOPS else "Tin"
        if types in node.attr:
            node.attr[types].list.type.extend([types_pb2.DT_RESOURCE] * count)
        # A handle is a scalar. An empty list of shapes says nothing of any output.
        for name in ("output_shapes", "_output_shapes") if node.op in LOOPS else ():
            if name in node.attr and node.attr[name].list.shape:
                for _ in range(count):
                    node.attr[name].list.shape.add()
        if "_read_only_resource_inputs" in node.attr:
            node.attr["_read_only_resource_inputs"].list.i.extend(range(first, first + count))

    def _hand_on(self, body: function_pb2.FunctionDef) -> None:
        """Let a loop's body return the handles that it takes, once."""
        outputs = {output.name for output in body.signature.output_arg}
        for argument in self.arguments[body.signature.name].values():
            if argument in outputs:
                continue
            body.signature.output_arg.add(name=argument, type=types_pb2.DT_RESOURCE)
            node = body.node_def.add(name=f"graphfreeze/{argument}", op="Identity")
            node.input.append(argument)
            node.attr["T"].type = types_pb2.DT_RESOURCE
            body.ret[argument] = f"{node.name}:output:0"

    # The main graph.

    def _main_graph(self, variables: Sequence[StoredVariable]) -> None:
        graph = self.meta.graph_def
        calls = list(graph.node)
        for variable in variables:
            node = graph.node.add(name=variable.name, op="VarHandleOp")
            node.attr["dtype"].type = variable.constant.proto_dtype
            node.attr["shared_name"].s = variable.name.encode()
            node.attr["container"].s = b""
            node.attr["shape"].shape.SetInParent()
            for size in variable.constant.shape:
                node.attr["shape"].shape.dim.add(size=size)
        self._pass_on(calls, {number: v.name for number, v in enumerate(variables)})
        extend_saver(self.meta, variables, self.objects)
