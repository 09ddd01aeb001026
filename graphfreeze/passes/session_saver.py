"""Sessions restore and save further variables, together with those that they already do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.framework import types_pb2

from graphfreeze.passes.storage import StoredVariable, extended_objects

__all__ = ["extend_saver"]

_HOST = "/device:CPU:0"


def extend_saver(meta_graph: Any, variables: Sequence[StoredVariable], objects: Any) -> None:
    """Extend the nodes with which a session restores and saves.

    Restoring reads the further keys from the same checkpoint, after the others. Saving lets the others go to a prefix
    of their own, the further ones to another, and merges the two. The object graph, a constant that is saved with the
    others and tells `tf.saved_model.load` which value lies where, gives place to one that knows of the further ones.

    Args:
        meta_graph: The graph; it is changed.
        variables: The further variables, whose handles have their names.
        objects: The object graph in the original's checkpoint.
    """
    saver = meta_graph.saver_def
    graph = _Graph(meta_graph.graph_def, "graphfreeze/saver")
    if not saver.restore_op_name:
        return
    keys = graph.strings("keys", [variable.key for variable in variables])
    slices = graph.strings("slices", [""] * len(variables))
    types = [variable.constant.proto_dtype for variable in variables]
    filename = saver.filename_tensor_name

    restored = graph.add("RestoreV2", "restore", [filename, keys, slices], device=_HOST)
    restored.attr["dtypes"].list.type.extend(types)
    assigned = []
    for position, variable in enumerate(variables):
        node = graph.add("AssignVariableOp", f"assign_{position}", [variable.name, f"{restored.name}:{position}"])
        node.attr["dtype"].type = types[position]
        assigned.append(f"^{node.name}")
    before = saver.restore_op_name.split(":", 1)[0]
    saver.restore_op_name = graph.add("NoOp", "restore_all", [f"^{before}", *assigned]).name

    if not saver.save_tensor_name:
        return
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    save = nodes[saver.save_tensor_name.split(":", 1)[0]]
    own, further = (graph.joined(filename, suffix) for suffix in ("_graphfreeze_1", "_graphfreeze_2"))
    taken = {filename, filename.removesuffix(":0"), f"{filename.removesuffix(':0')}:0"}
    for position, reference in enumerate(save.input):
        if reference in taken:
            save.input[position] = own
        elif (saved := _object_graph(nodes.get(reference.removesuffix(":0")), objects)) is not None:
            extended = extended_objects(saved, variables).SerializeToString(deterministic=True)
            save.input[position] = graph.string("objects", extended)
    values = []
    for position, variable in enumerate(variables):
        node = graph.add("ReadVariableOp", f"read_{position}", [variable.name])
        node.attr["dtype"].type = types[position]
        values.append(node.name)
    stored = graph.add("SaveV2", "save", [further, keys, slices, *values], device=_HOST)
    stored.attr["dtypes"].list.type.extend(types)
    prefixes = graph.add("Pack", "prefixes", [own, further], device=_HOST)
    prefixes.attr["T"].type = types_pb2.DT_STRING
    prefixes.attr["N"].i = 2
    # What is merged has to be written before.
    order = [f"^{save.name}", f"^{stored.name}"]
    merged = graph.add("MergeV2Checkpoints", "merge", [prefixes.name, filename, *order], device=_HOST)
    merged.attr["delete_old_dirs"].b = False
    result = graph.add("Identity", "save_all", [filename, f"^{merged.name}"], device=_HOST)
    result.attr["T"].type = types_pb2.DT_STRING
    saver.save_tensor_name = f"{result.name}:0"


def _object_graph(node: Any, objects: Any) -> Any | None:
    """The object graph that a constant holds; None where it is something else.

    It has the same objects and keys as the checkpoint's, but may call the variables otherwise: as handles are called.
    """
    if node is None or node.op != "Const" or "value" not in node.attr or len(node.attr["value"].tensor.string_val) != 1:
        return None
    try:
        found = type(objects).FromString(node.attr["value"].tensor.string_val[0])
    except DecodeError:
        return None
    return found if _keys(found) == _keys(objects) else None


def _keys(objects: Any) -> list[list[str]]:
    return [[attribute.checkpoint_key for attribute in node.attributes] for node in objects.nodes]


class _Graph:
    """Adds nodes under a scope that no node has yet."""

    def __init__(self, graph: Any, scope: str) -> None:
        taken = {node.name.split("/", 2)[1] for node in graph.node if node.name.startswith("graphfreeze/saver")}
        self.graph = graph
        self.scope = scope if not taken else f"{scope}_{len(taken)}"

    def add(self, operation: str, name: str, inputs: Sequence[str], device: str = "") -> Any:
        node = self.graph.node.add(name=f"{self.scope}/{name}", op=operation, device=device)
        node.input.extend(inputs)
        return node

    def strings(self, name: str, values: Sequence[str]) -> str:
        """A vector of strings as a constant; returns its name."""
        node = self.add("Const", name, [], device=_HOST)
        node.attr["dtype"].type = types_pb2.DT_STRING
        tensor = node.attr["value"].tensor
        tensor.dtype = types_pb2.DT_STRING
        tensor.tensor_shape.dim.add(size=len(values))
        tensor.string_val.extend(value.encode() for value in values)
        return str(node.name)

    def string(self, name: str, value: bytes) -> str:
        """A string as a constant; returns its name."""
        node = self.add("Const", name, [], device=_HOST)
        node.attr["dtype"].type = types_pb2.DT_STRING
        tensor = node.attr["value"].tensor
        tensor.dtype = types_pb2.DT_STRING
        tensor.tensor_shape.SetInParent()
        tensor.string_val.append(value)
        return str(node.name)

    def joined(self, filename: str, suffix: str) -> str:
        """The file name with a suffix; returns the tensor's name."""
        end = self.string(f"suffix{suffix}", suffix.encode())
        joined = self.add("StringJoin", f"prefix{suffix}", [filename, end], device=_HOST)
        joined.attr["N"].i = 2
        return str(joined.name)
