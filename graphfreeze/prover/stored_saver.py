"""How sessions restore and save the variables that hold masks and values."""

from __future__ import annotations

from typing import Any, NoReturn

from tensorflow.core.framework import types_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.graph_view import MAIN_GRAPH, data_inputs
from graphfreeze.prover.stored_objects import SavedObjects

__all__ = ["take_out_saver"]

DEVICES = frozenset({"", "/device:CPU:0"})
FIELDS = frozenset({"name", "op", "input", "device", "attr"})


def take_out_saver(
    before: Any, after: Any, keys: dict[str, int], variables: dict[int, Any], objects: SavedObjects
) -> dict[str, int]:
    """Prove that a session fills each handle with the tensor of its key, and saves it under that key.

    Args:
        before: The original's meta graph.
        after: The rewritten meta graph; the nodes that restore and save are removed, the handles stay.
        keys: Key in the checkpoint -> object node.
        variables: Object node -> the variable's proto.
        objects: Compares the object graphs that the original and the rewritten model save.

    Returns:
        The name of each handle -> object node.

    Raises:
        VerificationError: It cannot be proven.
    """
    return _Saver(before, after, keys, variables, objects).take_out()


def _fail(message: str, node: str | None = None) -> NoReturn:
    refuse(message, function=MAIN_GRAPH, node=node)


def _shared_name(node: Any) -> bytes:
    # Never index a missing key: that would create an empty attribute.
    name = bytes(node.attr["shared_name"].s) if "shared_name" in node.attr else b""
    return name or bytes(node.name.encode())


class _Saver:
    def __init__(
        self, before: Any, after: Any, keys: dict[str, int], variables: dict[int, Any], objects: SavedObjects
    ) -> None:
        self.before, self.after, self.keys, self.variables, self.objects = before, after, keys, variables, objects
        old = {node.name for node in before.graph_def.node}
        self.nodes = {node.name: node for node in after.graph_def.node}
        if len(self.nodes) < len(after.graph_def.node):
            _fail("expected node names to be unique, found one twice")
        self.added = {name for name in self.nodes if name not in old}
        self.used: set[str] = set()

    def take_out(self) -> dict[str, int]:
        handles = {name: node for name in sorted(self.added) if (node := self.nodes[name]).op == "VarHandleOp"}
        shared = [_shared_name(node) for node in self.nodes.values() if node.op == "VarHandleOp"]
        if not self.before.saver_def.restore_op_name:
            if self.added:
                _fail("expected nothing added to a main graph that restores nothing, found some", min(self.added))
            return {}
        restored = self._restored()
        if set(handles) != set(restored):
            _fail("expected every handle of a mask or value to be restored once, found one that is not")
        for name, node in handles.items():
            proto = self.variables[restored[name]]
            attributes = set(node.attr) - {"container", "shared_name", "dtype", "shape"}
            if (
                attributes
                or node.input
                or (node.attr["dtype"].type, node.attr["shape"].shape) != (proto.dtype, proto.shape)
            ):
                _fail("expected the handle of a mask or value with its shape and dtype, found another", name)
            own = _shared_name(node)
            if shared.count(own) != 1 or ("container" in node.attr and node.attr["container"].s):
                _fail("expected a handle that no other node shares, found a second one of its name", name)
        self._saved(restored)
        left = self.added - self.used - set(handles)
        if left:
            _fail("expected only nodes that restore and save masks and values, found another", min(left))
        for field in ("restore_op_name", "save_tensor_name"):
            setattr(self.after.saver_def, field, getattr(self.before.saver_def, field))
        main = self.after.graph_def.node
        kept = [node for node in main if node.name not in self.used]
        copies = [type(node).FromString(node.SerializeToString()) for node in kept]
        del main[:]
        main.extend(copies)
        return restored

    def _added(self, text: str, operation: str, inputs: int) -> Any:
        """An added node that nothing but the saver uses."""
        name = text.lstrip("^").split(":", 1)[0]
        node = self.nodes.get(name)
        if node is None or name not in self.added or node.op != operation or len(data_inputs(node)) != inputs:
            _fail(f"expected an added {operation} with {inputs} inputs, found {text!r}")
        if not {field.name for field, _ in node.ListFields()} <= FIELDS or node.device not in DEVICES:
            _fail(f"expected a plain {operation}, found another device or other fields", name)
        self.used.add(name)
        return node

    def _check_attributes(self, node: Any, **expected: int | list[int]) -> None:
        """A node has these numbers and data types, and no other attribute."""
        found = {name: _plain(node.attr[name]) for name in node.attr}
        if found != expected:
            _fail(f"expected a {node.op} with {expected}, found {found}", node.name)

    def _strings(self, text: str, *, scalar: bool = False) -> list[str]:
        node = self._added(text, "Const", 0)
        tensor = node.attr["value"].tensor if "value" in node.attr else None
        self._check_attributes(node, dtype=types_pb2.DT_STRING, value=types_pb2.DT_STRING)
        strings = [] if tensor is None else [value.decode() for value in tensor.string_val]
        shape = None if tensor is None else [dim.size for dim in tensor.tensor_shape.dim]
        if shape != ([] if scalar else [len(strings)]) or (scalar and len(strings) != 1):
            _fail("expected a constant of as many strings as its shape says, found another", node.name)
        return strings

    def _types(self, keys: list[str]) -> list[int]:
        """The data types of masks and values under these keys."""
        return [int(self.variables[self.keys[key]].dtype) for key in keys]

    def _restored(self) -> dict[str, int]:
        """Handle -> object node, as restoring assigns them."""
        saver, old = self.after.saver_def, self.before.saver_def
        last = self._added(saver.restore_op_name, "NoOp", 0)
        self._check_attributes(last)
        first = "^" + old.restore_op_name.split(":", 1)[0]
        if not len(last.input) or last.input[0] != first:
            _fail("expected everything else to be restored too, found that it is not", last.name)
        handles: dict[str, int] = {}
        for position, text in enumerate(last.input[1:]):
            assign = self._added(text, "AssignVariableOp", 2)
            handle, value = assign.input
            read = self._added(value, "RestoreV2", 3)
            keys, slices = self._strings(read.input[1]), self._strings(read.input[2])
            index = int(value.partition(":")[2] or 0)
            if read.input[0] != old.filename_tensor_name or index != position or len(keys) != len(last.input) - 1:
                _fail("expected one restored tensor for each handle, found others", read.name)
            if any(slices) or len(slices) != len(keys) or keys[index] not in self.keys or handle in handles:
                _fail("expected whole tensors of the masks and values to be restored, found others", read.name)
            handles[handle] = self.keys[keys[index]]
            if not set(keys) <= set(self.keys):
                _fail("expected whole tensors of the masks and values to be restored, found others", read.name)
            self._check_attributes(read, dtypes=self._types(keys))
            self._check_attributes(assign, dtype=self._types(keys)[index])
        if len(set(handles.values())) != len(handles):
            _fail("expected every mask and value to be restored once, found one restored twice", last.name)
        return handles

    def _saved(self, handles: dict[str, int]) -> None:
        saver, old = self.after.saver_def, self.before.saver_def
        if not old.save_tensor_name:
            return
        names = {node: key for key, node in self.keys.items()}
        result = self._added(saver.save_tensor_name, "Identity", 1)
        self._check_attributes(result, T=types_pb2.DT_STRING)
        merge = self._added(result.input[1], "MergeV2Checkpoints", 2) if len(result.input) == 2 else None
        if merge is None or result.input[0] != old.filename_tensor_name or merge.input[1] != old.filename_tensor_name:
            _fail("expected what is saved to be merged at the given name, found something else", result.name)
        pack = self._added(merge.input[0], "Pack", 2)
        self._check_attributes(merge, delete_old_dirs=0)
        self._check_attributes(pack, T=types_pb2.DT_STRING, N=2)
        own, further = (self._joined(text) for text in pack.input)
        save_name = old.save_tensor_name.split(":", 1)[0]
        stored = self._added(merge.input[3], "SaveV2", 3 + len(handles)) if len(merge.input) == 4 else None
        if stored is None or merge.input[2] != f"^{save_name}" or stored.input[0] != further or own == further:
            _fail("expected both halves to be saved before they are merged, found something else", merge.name)
        keys, slices = self._strings(stored.input[1]), self._strings(stored.input[2])
        for key, text in zip(keys, stored.input[3:], strict=True):
            read = self._added(text, "ReadVariableOp", 1)
            if names.get(handles.get(read.input[0], -1)) != key:
                _fail("expected every mask and value to be saved under its key, found another", read.name)
            self._check_attributes(read, dtype=self._types([key])[0])
        if any(slices) or len(slices) != len(keys) or len(set(keys)) != len(handles):
            _fail("expected every mask and value to be saved whole, found something else", stored.name)
        self._check_attributes(stored, dtypes=self._types(keys))
        save = self.nodes[save_name]
        inputs = next(node for node in self.before.graph_def.node if node.name == save_name).input
        if len(save.input) != len(inputs):
            _fail("expected what is saved to stay the same, found other inputs", save_name)
        for position, text in enumerate(inputs):
            if save.input[position] == own or self._is_object_graph(text, save.input[position]):
                save.input[position] = text

    def _is_object_graph(self, before: str, after: str) -> bool:
        """Whether the object graph is saved here. Then it has to be one that knows of the masks and values."""
        node = self.nodes.get(before.split(":", 1)[0])
        if node is None or node.op != "Const" or not self.objects.known(_content(node)):
            return False
        added = self._added(after, "Const", 0)
        self._check_attributes(added, dtype=types_pb2.DT_STRING, value=types_pb2.DT_STRING)
        if len(added.attr["value"].tensor.tensor_shape.dim):
            _fail("expected the object graph to be saved as a scalar, found another shape", added.name)
        self.objects.compare(_content(node), _content(added))
        return True

    def _joined(self, text: str) -> str:
        node = self._added(text, "StringJoin", 2)
        self._check_attributes(node, N=2)
        ends = self._strings(node.input[1], scalar=True)
        if node.input[0] != self.before.saver_def.filename_tensor_name or not all(ends):
            _fail("expected a prefix made from the given name, found another", node.name)
        return text


def _content(node: Any) -> bytes:
    """The string that a constant holds; empty where it holds something else."""
    strings = list(node.attr["value"].tensor.string_val) if "value" in node.attr else []
    return bytes(strings[0]) if len(strings) == 1 else b""


def _plain(value: Any) -> int | list[int] | None:
    """A number, a data type, or a list of data types; of a tensor its data type. None of anything else."""
    kind = value.WhichOneof("value")
    if kind in ("i", "b", "type"):
        return int(getattr(value, kind))
    if kind == "list":
        return [int(found) for found in value.list.type]
    return int(value.tensor.dtype) if kind == "tensor" else None
