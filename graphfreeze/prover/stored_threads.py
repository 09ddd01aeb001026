"""The arguments that carry masks and frozen values: which variable each carries, proven call by call, and taken out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tensorflow.core.framework import types_pb2

from graphfreeze.prover.constants import STORED_MARK
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import MAIN_GRAPH, GraphView, call_slots, data_inputs
from graphfreeze.prover.handles import BRANCHES, CALLS, LOOPS
from graphfreeze.prover.stored_objects import SavedObjects, copied
from graphfreeze.prover.stored_saver import take_out_saver

__all__ = ["Threads"]


class Threads:
    """The further arguments: which variable each carries.

    Args:
        before: The original's meta graph.
        after: The rewritten meta graph.
        stored: The variables that hold masks and values, by object node, each with its path and proto.
        places: By object node: the key, and where the bytes lie.
        objects: Compares the object graphs that sessions save.
    """

    def __init__(
        self,
        before: Any,
        after: Any,
        stored: dict[int, Any],
        places: dict[int, tuple[str, Path, int]],
        objects: SavedObjects,
    ) -> None:
        self.before, self.after, self.objects = before, after, objects
        self.stored, self.places = stored, places
        self.functions = {f.signature.name: f for f in after.graph_def.library.function}
        self.views = {name: GraphView.of_function(f) for name, f in self.functions.items()}
        self.carried: dict[str, dict[int, int]] = {}
        """Function -> position of an argument -> object node."""
        self.queue: deque[str] = deque()

    def take_out(self) -> None:
        """Prove them, and put constants in the place of their reads; `after` is changed.

        Raises:
            VerificationError: Something about them cannot be proven.
        """
        self._from_captures()
        keys = {key: node for node, (key, _, _) in self.places.items()}
        protos = {node: proto for node, (_, proto) in self.stored.items()}
        handles = take_out_saver(self.before, self.after, keys, protos, self.objects)
        main = self.after.graph_def.node
        self._follow(MAIN_GRAPH, main, handles)
        while self.queue:
            name = self.queue.popleft()
            self._follow(name, self.functions[name].node_def, self._arguments(name))
        self._check_calls(MAIN_GRAPH, main, handles)
        for name, function in self.functions.items():
            self._check_calls(name, function.node_def, self._arguments(name))
        self._strip_calls(main, handles)
        for name in [*self.functions]:
            handles_of = self._arguments(name)
            self._strip_calls(self.functions[name].node_def, handles_of)
            self._strip_function(name, handles_of)
        names = set(handles)
        kept = [node for node in main if node.name not in names]
        del main[:]
        main.extend(kept)

    def _arguments(self, name: str) -> dict[str, int]:
        arguments = self.functions[name].signature.input_arg
        return {arguments[position].name: node for position, node in self.carried.get(name, {}).items()}

    def _from_captures(self) -> None:
        old, new = self.before.object_graph_def.concrete_functions, self.after.object_graph_def.concrete_functions
        for name in sorted(set(old) & set(new)):
            count = len(old[name].bound_inputs)
            further = list(new[name].bound_inputs[count:])
            if not further:
                continue
            if name not in self.functions or any(node not in self.stored for node in further):
                refuse("expected further captures to be masks and values, found another object", function=name)
            first = len(self.functions[name].signature.input_arg) - len(further)
            for position, node in enumerate(further, first):
                self._carry(name, position, node)
            del new[name].bound_inputs[count:]

    def _carry(self, function: str, position: int, node: int) -> None:
        known = self.carried.setdefault(function, {})
        if known.get(position, node) != node:
            refuse("expected an argument to carry the same mask or value at every call, found two", function=function)
        if position not in known:
            if not 0 <= position < len(self.functions[function].signature.input_arg):
                refuse("expected a call with as many inputs as there are arguments, found more", function=function)
            known[position] = node
            self.queue.append(function)

    def _passed(self, node: Any, handles: dict[str, int]) -> Iterator[tuple[str, int, int | None]]:
        """What a call passes: callee, position, and the variable, if it is one of ours."""
        shift = 1 if node.op in BRANCHES else 0
        for slot in call_slots(node, self.views):
            for position, text in enumerate(data_inputs(node)):
                if position >= shift:
                    yield slot.function, position - shift, handles.get(text.removesuffix(":0"))

    def _is_call(self, node: Any) -> bool:
        return node.op in CALLS or node.op in LOOPS or node.op in BRANCHES or node.op in self.functions

    def _follow(self, function: str, nodes: Iterable[Any], handles: dict[str, int]) -> None:
        for node in nodes:
            taken = [text for text in data_inputs(node) if text.removesuffix(":0") in handles]
            if not taken:
                continue
            if self._is_call(node):
                for callee, position, variable in self._passed(node, handles):
                    if variable is not None:
                        self._carry(callee, position, variable)
            elif not self._is_read(node) and not self._is_handed_on(function, node):
                refuse(
                    f"expected masks and values to be read only, found one taken by {node.op}",
                    function=function,
                    node=node.name,
                )

    def _is_read(self, node: Any) -> bool:
        known = {field.name for field, _ in node.ListFields()} <= {"name", "op", "input", "device", "attr"}
        return node.op == "ReadVariableOp" and len(node.input) == 1 and set(node.attr) == {"dtype"} and known

    def _is_handed_on(self, function: str, node: Any) -> bool:
        """An Identity whose only taker is the function's output at the argument's own position."""
        if node.op != "Identity" or function == MAIN_GRAPH or len(node.input) != 1 or set(node.attr) != {"T"}:
            return False
        body = self.functions[function]
        arguments = [argument.name for argument in body.signature.input_arg]
        position = arguments.index(node.input[0])
        outputs = body.signature.output_arg
        takers = sum(text.lstrip("^").split(":", 1)[0] == node.name for n in body.node_def for text in n.input)
        returned = [name for name, text in body.ret.items() if text.split(":", 1)[0] == node.name]
        return takers == 0 and position < len(outputs) and returned == [outputs[position].name]

    def _check_calls(self, function: str, nodes: Iterable[Any], handles: dict[str, int]) -> None:
        """Every call passes what the callee expects, in every place."""
        for node in nodes:
            slots = call_slots(node, self.views)
            if not any(slot.function in self.carried for slot in slots):
                continue
            if not self._is_call(node):
                refuse(
                    "expected a call that passes masks and values, found another use", function=function, node=node.name
                )
            passed = {(callee, position): variable for callee, position, variable in self._passed(node, handles)}
            for slot in slots:
                for position, variable in self.carried.get(slot.function, {}).items():
                    if passed.get((slot.function, position)) != variable:
                        refuse(
                            "expected every call to pass the same mask or value, found one that does not",
                            function=function,
                            node=node.name,
                        )

    # Taking them out. What does not fit the original afterwards is found by the comparison.

    def _strip_calls(self, nodes: Iterable[Any], handles: dict[str, int]) -> None:
        for node in nodes:
            if not self._is_call(node):
                continue
            data = data_inputs(node)
            kept = [text for text in data if text.removesuffix(":0") not in handles]
            count = len(data) - len(kept)
            if not count:
                continue
            if data[: len(kept)] != kept:
                refuse(
                    "expected masks and values behind all other inputs of a call, found them between", node=node.name
                )
            control = [text for text in node.input if text.startswith("^")]
            del node.input[:]
            node.input.extend([*kept, *control])
            self._strip_attributes(node, len(kept), count)

    def _strip_attributes(self, node: Any, first: int, count: int) -> None:
        """A call notes of what it passes that it is a handle, and of a loop's outputs, that they are scalars."""
        loop = node.op in LOOPS
        removed = []
        for name, field in (
            ("T" if loop else "Tin", "type"),
            *((("output_shapes", "shape"), ("_output_shapes", "shape")) if loop else ()),
        ):
            if name in node.attr:
                values = getattr(node.attr[name].list, field)
                removed += [value if field == "type" else value.ListFields() for value in values[-count:]]
                del values[-count:]
        if any(value not in (types_pb2.DT_RESOURCE, []) for value in removed):
            refuse("expected a call to pass masks and values as handles, found another type", node=node.name)
        if "_read_only_resource_inputs" in node.attr:
            positions = node.attr["_read_only_resource_inputs"].list.i
            left = [p for p in positions if p < first]
            if sorted(set(positions) - set(left)) != list(range(first, first + count)):
                refuse("expected a call to note masks and values as read only, found other inputs", node=node.name)
            del positions[:]
            positions.extend(left)

    def _strip_function(self, name: str, handles: dict[str, int]) -> None:
        if not handles:
            return
        function = self.functions[name]
        arguments = function.signature.input_arg
        if any(argument.name in handles for argument in arguments[: len(arguments) - len(handles)]):
            refuse("expected masks and values behind all other arguments, found them between", function=name)
        handed_on = {n.name for n in function.node_def if n.op == "Identity" and n.input[0] in handles}
        for output in [o for o in function.signature.output_arg if _node_of(function.ret[o.name]) in handed_on]:
            if output.type != types_pb2.DT_RESOURCE or len(output.ListFields()) > 2:
                refuse("expected a mask or value to be handed on as a handle, found another output", function=name)
            del function.ret[output.name]
            function.signature.output_arg.remove(output)
        for argument in arguments[len(arguments) - len(handles) :]:
            self._check_argument(argument, handles[argument.name], name)
        shapes = function.attr["_input_shapes"].list.shape if "_input_shapes" in function.attr else []
        if len(shapes) not in (0, len(arguments)) or any(
            s.ListFields() for s in shapes[len(arguments) - len(handles) :]
        ):
            refuse("expected a scalar's shape to be noted of each mask and value, found others", function=name)
        del arguments[len(arguments) - len(handles) :]
        del shapes[len(arguments) :]
        renamed = {}
        for node in function.node_def:
            if node.op == "ReadVariableOp" and node.input[0] in handles:
                self._make_constant(node, handles[node.input[0]], name)
                renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
        kept = [node for node in function.node_def if node.name not in handed_on]
        for node in kept:
            for position, text in enumerate(node.input):
                node.input[position] = renamed.get(text, text)
        copies = [copied(node) for node in kept]
        del function.node_def[:]
        function.node_def.extend(copies)

    def _check_argument(self, argument: Any, variable: int, function: str) -> None:
        """An argument says that it is a handle, and what of."""
        _, proto = self.stored[variable]
        known = {field.name for field, _ in argument.ListFields()} == {"name", "type", "handle_data"}
        data = [(d.dtype, d.shape.unknown_rank, [dim.size for dim in d.shape.dim]) for d in argument.handle_data]
        expected = [(proto.dtype, False, [dim.size for dim in proto.shape.dim])]
        if not known or argument.type != types_pb2.DT_RESOURCE or data != expected:
            refuse(
                f"expected the argument {argument.name!r} to be the handle of its mask or value, found another",
                function=function,
            )

    def _make_constant(self, node: Any, variable: int, function: str) -> None:
        _, proto = self.stored[variable]
        if node.attr["dtype"].type != proto.dtype:
            refuse(
                "expected the read of a mask or value to have its dtype, found another",
                function=function,
                node=node.name,
            )
        _, path, offset = self.places[variable]
        node.op = "Const"
        del node.input[:]
        tensor = node.attr["value"].tensor
        tensor.dtype = proto.dtype
        tensor.tensor_shape.CopyFrom(proto.shape)
        tensor.string_val.extend([STORED_MARK, str(path).encode(), str(offset).encode()])


def _node_of(text: str) -> str:
    return text.split(":", 1)[0]
