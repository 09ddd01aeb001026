"""Sessions restore and save further variables, together with those that they already do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensorflow.core.framework import types_pb2

__all__ = ["extend_saver"]

_HOST = "/device:CPU:0"


def extend_saver(meta_graph: Any, variables: Sequence[tuple[str, str, int]]) -> None:
    """Extend the nodes with which a session restores and saves.

    Restoring reads the further keys from the same checkpoint, after the others. Saving lets the others go to a prefix
    of their own, the further ones to another, and merges the two.

    Args:
        meta_graph: The graph; it is changed.
        variables: Of each: the name of its handle's node, its key in the checkpoint, its data type.
    """
    saver = meta_graph.saver_def
    graph = _Graph(meta_graph.graph_def, "graphfreeze/saver")
    if not saver.restore_op_name:
        return
    keys = graph.strings("keys", [key for _, key, _ in variables])
    slices = graph.strings("slices", [""] * len(variables))
    types = [dtype for _, _, dtype in variables]
    filename = saver.filename_tensor_name

    restored = graph.add("RestoreV2", "restore", [filename, keys, slices], device=_HOST)
    restored.attr["dtypes"].list.type.extend(types)
    assigned = []
    for position, (handle, _, dtype) in enumerate(variables):
        node = graph.add("AssignVariableOp", f"assign_{position}", [handle, f"{restored.name}:{position}"])
        node.attr["dtype"].type = dtype
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
    values = []
    for position, (handle, _, dtype) in enumerate(variables):
        node = graph.add("ReadVariableOp", f"read_{position}", [handle])
        node.attr["dtype"].type = dtype
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

    def joined(self, filename: str, suffix: str) -> str:
        """The file name with a suffix; returns the tensor's name."""
        node = self.add("Const", f"suffix{suffix}", [], device=_HOST)
        node.attr["dtype"].type = types_pb2.DT_STRING
        tensor = node.attr["value"].tensor
        tensor.dtype = types_pb2.DT_STRING
        tensor.tensor_shape.SetInParent()
        tensor.string_val.append(suffix.encode())
        joined = self.add("StringJoin", f"prefix{suffix}", [filename, node.name], device=_HOST)
        joined.attr["N"].i = 2
        return str(joined.name)
