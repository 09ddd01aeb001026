"""Masks and frozen values that are variables: proven, and then taken out of the graph, as if they were constants.

A rewritten model may hold large masks and values as variables in its checkpoint, whose handles functions get as further
arguments. Here it is proven that at every call each further argument carries one and the same such variable, that both
loaders fill it with the tensor of one key, and that nothing but reads takes it. Then arguments, handles and reads give
place to constants that say where in the shards their bytes lie. What is left is compared as any other model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from graphfreeze.prover.bundle import OBJECT_GRAPH, Bundle, read_bundle
from graphfreeze.prover.constants import STORED_MARK, numpy_size
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import MAIN_GRAPH, GraphView, call_slots, data_inputs
from graphfreeze.prover.handles import BRANCHES, CALLS, LOOPS
from graphfreeze.prover.messages import differing_fields
from graphfreeze.prover.stored_saver import take_out_saver

__all__ = ["take_out_stored"]


def take_out_stored(before: Any, after: Any, original: Path, rewritten: Path) -> int:
    """Prove how a model uses the variables that hold masks and values, and put constants in their place.

    Args:
        before: The original's meta graph.
        after: The rewritten meta graph; it is changed.
        original: The original's directory.
        rewritten: The rewritten model's directory.

    Returns:
        How many such variables there are. With none, nothing is changed.

    Raises:
        VerificationError: Something about them cannot be proven.
    """
    functions = after.graph_def.library.function
    for nodes in (after.graph_def.node, *(function.node_def for function in functions)):
        for node in nodes:
            if "value" in node.attr and STORED_MARK in node.attr["value"].tensor.string_val:
                refuse("expected no constant that names a file, found one", node=node.name)
    if len(after.object_graph_def.nodes) <= len(before.object_graph_def.nodes):
        return 0
    stored = _take_out_objects(before.object_graph_def, after.object_graph_def)
    old, new = read_bundle(original), read_bundle(rewritten)
    objects = _SavedObjects(old.objects(), new.objects(), stored)
    tensors = _locate(stored, old, new, objects.keys)
    _Threads(before, after, stored, tensors, objects).take_out()
    return len(stored)


def _take_out_objects(before: Any, after: Any) -> dict[int, tuple[tuple[str, str], Any]]:
    """The variables by object node, each with its path and proto; they and their holder are removed."""
    first = len(before.nodes)
    if len(after.nodes[0].children) != len(before.nodes[0].children) + 1:
        refuse("expected one more child of the root, which holds masks and values, found another number")
    child = after.nodes[0].children[-1]
    holder = after.nodes[first]
    fields = {field.name for field, _ in holder.ListFields()}
    if child.node_id != first or not fields <= {"children", "user_object"}:
        refuse("expected the last child of the root to hold masks and values, found something else")
    stored = {}
    for position, entry in enumerate(holder.children):
        node = after.nodes[entry.node_id] if entry.node_id < len(after.nodes) else holder
        if entry.node_id != first + 1 + position or {field.name for field, _ in node.ListFields()} != {"variable"}:
            refuse(f"expected a variable at {child.local_name}/{entry.local_name}, found something else")
        if node.variable.trainable:
            refuse(f"expected masks and values that do not train, found that {node.variable.name} does")
        stored[entry.node_id] = ((str(child.local_name), str(entry.local_name)), node.variable)
    if len(after.nodes) != first + 1 + len(stored):
        refuse(f"expected {first + 1 + len(stored)} objects, found {len(after.nodes)}")
    stored = {node: (path, _copy(proto)) for node, (path, proto) in stored.items()}
    del after.nodes[first:]
    del after.nodes[0].children[-1]
    return stored


def _copy(message: Any) -> Any:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied


class _SavedObjects:
    """The object graphs that are saved with the values: in the checkpoint, and in what a session saves.

    Attributes:
        keys: The key of each mask and value, by object node.
    """

    def __init__(self, old: Any, new: Any, stored: dict[int, Any]) -> None:
        self.old, self.stored = old, stored
        _compare_objects(old, new, stored)
        self.keys = _keys(new, stored)

    def known(self, content: bytes) -> bool:
        """Whether these are the objects and keys of the original's checkpoint; variables may be called otherwise."""
        found = self._parsed(content)
        return found is not None and _all_keys(found) == _all_keys(self.old)

    def compare(self, before: bytes, after: bytes) -> None:
        """Prove that the second is the first, with masks and values under their keys."""
        old, new = self._parsed(before), self._parsed(after)
        if new is None or not new.nodes:
            refuse("expected a session to save an object graph, found something else")
        _compare_objects(old, new, self.stored)
        if _keys(new, self.stored) != self.keys:
            refuse("expected a session to save masks and values under their keys, found others")

    def _parsed(self, content: bytes) -> Any | None:
        try:
            return type(self.old).FromString(content)
        except Exception:
            # protobuf's DecodeError is a plain Exception in some implementations.
            return None


def _all_keys(objects: Any) -> list[list[str]]:
    return [[attribute.checkpoint_key for attribute in node.attributes] for node in objects.nodes]


def _locate(stored: dict[int, Any], old: Bundle, new: Bundle, keys: dict[int, str]) -> dict[int, tuple[str, Path, int]]:
    """By object node: the key, and where the bytes lie. The rest of the checkpoint has to be the original's."""
    expected = {key: entry for key, entry in old.entries.items() if key != OBJECT_GRAPH}
    further = {key.encode() for key in keys.values()} | {OBJECT_GRAPH}
    if (
        set(new.entries) - further != set(expected)
        or len(further) != len(stored) + 1
        or not further.isdisjoint(expected)
    ):
        refuse("expected the original's checkpoint with masks and values, found other keys")
    for key, entry in expected.items():
        if new.entries[key] != entry:
            refuse(f"expected the index entry of {key.decode(errors='replace')!r} to stay as it is, found another")
    if differing_fields(old.header, new.header, skip=("num_shards",)):
        refuse("expected the checkpoint's header to keep its byte order and version, found others")
    places = {}
    for node, (_, proto) in stored.items():
        entry = new.entries[keys[node].encode()]
        size = numpy_size(proto.dtype, [dim.size for dim in proto.shape.dim])
        if (entry.dtype, entry.shape) != (proto.dtype, proto.shape) or entry.size != size or len(entry.slices):
            refuse(f"expected the tensor {keys[node]!r} to have the shape and dtype of its variable, found others")
        path = new.shard(entry.shard_id)
        if not path.is_file() or entry.offset < 0 or path.stat().st_size < entry.offset + entry.size:
            refuse(f"expected the tensor {keys[node]!r} in {path.name}, found a file that ends before")
        places[node] = (keys[node], path, int(entry.offset))
    return places


def _compare_objects(old: Any, new: Any, stored: dict[int, Any]) -> None:
    kept = _copy(new)
    del kept.nodes[len(old.nodes) :]
    if not len(kept.nodes[0].children) or len(new.nodes) != len(old.nodes) + 1 + len(stored):
        refuse("expected the checkpoint's object graph with masks and values, found another")
    del kept.nodes[0].children[-1]
    if kept != old:
        refuse("expected the checkpoint's object graph to stay as it is, found another")


def _keys(objects: Any, stored: dict[int, Any]) -> dict[int, str]:
    children = {child.local_name: child.node_id for child in objects.nodes[0].children}
    keys = {}
    for node, ((child, local), _) in stored.items():
        holder = objects.nodes[children[child]] if child in children else objects.nodes[0]
        inner = {entry.local_name: entry.node_id for entry in holder.children}
        attributes = list(objects.nodes[inner[local]].attributes) if local in inner else []
        if [attribute.name for attribute in attributes] != ["VARIABLE_VALUE"]:
            refuse(f"expected a value of {child}/{local} in the checkpoint, found none")
        keys[node] = str(attributes[0].checkpoint_key)
    return keys


class _Threads:
    """The further arguments: which variable each carries."""

    def __init__(
        self,
        before: Any,
        after: Any,
        stored: dict[int, Any],
        places: dict[int, tuple[str, Path, int]],
        objects: _SavedObjects,
    ) -> None:
        self.before, self.after, self.objects = before, after, objects
        self.stored, self.places = stored, places
        self.functions = {f.signature.name: f for f in after.graph_def.library.function}
        self.views = {name: GraphView.of_function(f) for name, f in self.functions.items()}
        self.carried: dict[str, dict[int, int]] = {}
        """Function -> position of an argument -> object node."""
        self.queue: deque[str] = deque()

    def take_out(self) -> None:
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
            loop = node.op in LOOPS
            for name, field in (
                ("T" if loop else "Tin", "type"),
                *((("output_shapes", "shape"), ("_output_shapes", "shape")) if loop else ()),
            ):
                if name in node.attr:
                    del getattr(node.attr[name].list, field)[-count:]
            if "_read_only_resource_inputs" in node.attr:
                positions = node.attr["_read_only_resource_inputs"].list.i
                left = [p for p in positions if p < len(kept)]
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
            del function.ret[output.name]
            function.signature.output_arg.remove(output)
        del arguments[len(arguments) - len(handles) :]
        if "_input_shapes" in function.attr:
            del function.attr["_input_shapes"].list.shape[len(arguments) :]
        renamed = {}
        for node in function.node_def:
            if node.op == "ReadVariableOp" and node.input[0] in handles:
                self._make_constant(node, handles[node.input[0]], name)
                renamed[f"{node.name}:value:0"] = f"{node.name}:output:0"
        kept = [node for node in function.node_def if node.name not in handed_on]
        for node in kept:
            for position, text in enumerate(node.input):
                node.input[position] = renamed.get(text, text)
        copies = [_copy(node) for node in kept]
        del function.node_def[:]
        function.node_def.extend(copies)

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
