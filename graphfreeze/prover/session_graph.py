"""A graph without objects, as TensorFlow 1 writes it: variables are nodes, which a session restores, trains and saves.

What a variable is called comes from the saver: the key that is assigned to it, and the slice of a partitioned one.
Its node yields a handle, or a reference. An operation that takes a reference writes the variable; or it takes the
value, like any tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from tensorflow.core.framework import node_def_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.prover.graph_view import GraphView, Tensor, data_inputs
from graphfreeze.prover.writes import write_of

__all__ = ["REFERENCE_NODES", "REFERENCE_SAFE", "SessionGraph", "SessionVariable", "takes_value"]

REFERENCE_NODES = frozenset({"Variable", "VariableV2"})
HANDLE_NODE = "VarHandleOp"
ANONYMOUS = b"cd2c89b7-88b7-44c8-ad83-06c2a9158347"
ASSIGNS = frozenset({"Assign", "AssignVariableOp"})
RESTORES = frozenset({"Restore", "RestoreSlice", "RestoreV2"})
SAVES = frozenset({"Save", "SaveSlices", "SaveV2"})
SAME_REFERENCE = {"RefEnter": 1, "RefIdentity": 1, "RefSwitch": 2}
REFERENCE_SAFE = frozenset({*SAME_REFERENCE, "IsVariableInitialized"})
"""What may take a reference besides what writes: it hands it on, or asks a harmless question."""
INITIAL = ("saved_model_main_op", "legacy_init_op", "__saved_model_init_op")


@dataclass(frozen=True)
class SessionVariable:
    """A variable.

    Attributes:
        node_id: The position of its first node.
        nodes: The names of its nodes.
        key: The key that it is restored from; None where it is not.
        path: The same, with the slice where it is restored from a slice.
        shape: Its static shape; None where the node does not say it.
        dtype: Its DataType.
        is_reference: Whether its nodes yield references.
    """

    node_id: int
    nodes: tuple[str, ...]
    key: str | None
    path: str | None
    shape: tuple[int, ...] | None
    dtype: int
    is_reference: bool


def takes_value(node: node_def_pb2.NodeDef, position: int) -> bool:
    """Whether a node takes the value of a reference at that input, and not the reference."""
    if node.op in REFERENCE_SAFE:
        return position != 0
    write = write_of(node)
    return write is None or not write.reference or position not in write.handles


@dataclass
class SessionGraph:
    """The main graph of a model without objects.

    Attributes:
        meta: Its meta graph.
        view: Its nodes.
    """

    meta: meta_graph_pb2.MetaGraphDef
    view: GraphView = field(init=False)

    def __post_init__(self) -> None:
        self.view = GraphView.of_main_graph(self.meta.graph_def)

    @cached_property
    def variables(self) -> dict[int, SessionVariable]:
        """All variables, by `node_id`."""
        restored = self._restored()
        groups: dict[tuple[Any, ...], list[int]] = {}
        nodes = list(self.view.nodes.values())
        for position, node in enumerate(nodes):
            if node.op in REFERENCE_NODES or node.op == HANDLE_NODE:
                groups.setdefault(_shared(node), []).append(position)
        found = {}
        for positions in groups.values():
            names = tuple(nodes[position].name for position in positions)
            first = nodes[positions[0]]
            key, path = next((restored[name] for name in names if name in restored), (None, None))
            found[positions[0]] = SessionVariable(
                positions[0], names, key, path, _static(first), first.attr["dtype"].type, first.op in REFERENCE_NODES
            )
        return found

    def sources(self, followed: Mapping[int, Any]) -> tuple[dict[tuple[str, int], int], frozenset[tuple[str, int]]]:
        """The tensors that are handles and references of variables.

        Args:
            followed: The variables by `node_id`.

        Returns:
            The variable by tensor, and which of the tensors are references.
        """
        found: dict[tuple[str, int], int] = {}
        references: set[tuple[str, int]] = set()
        for node_id in followed:
            variable = self.variables[node_id]
            keys = [(name, 0) for name in variable.nodes]
            if variable.is_reference:
                keys += self._same_references(keys)
                references.update(keys)
            found.update(dict.fromkeys(keys, node_id))
        return found, frozenset(references)

    def _same_references(self, keys: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int]]:
        """What yields the same references again: operations that hand them on, and those that write."""
        work, seen = list(keys), set(keys)
        while work:
            for node, position in self._takers.get(work.pop(), ()):
                if takes_value(node, position) or position != 0 or node.op == "IsVariableInitialized":
                    continue
                for key in ((node.name, output) for output in range(SAME_REFERENCE.get(node.op, 1))):
                    if key not in seen:
                        seen.add(key)
                        work.append(key)
                        yield key

    @cached_property
    def live(self) -> frozenset[str]:
        """The nodes in which targeted variables are to be masked: all but those whose values only end in a save."""
        given = {Tensor.parse(text).node for text in self._given_out()}
        saving: dict[str, bool] = {}
        for name in self.view.nodes:
            work = [name]
            while work:
                node = self.view.nodes[work[-1]]
                takers = [taker.name for taker, _ in self._takers.get((node.name, 0), ())]
                if node.op != "Identity" or node.name in given or not takers:
                    saving[node.name] = node.op in SAVES
                missing = [taker for taker in takers if taker not in saving and taker not in work]
                if node.name in saving or not missing:
                    saving.setdefault(node.name, all(saving.get(taker, False) for taker in takers))
                    work.pop()
                else:
                    work.extend(missing[:1])
        return frozenset(name for name, saves in saving.items() if not saves)

    @cached_property
    def initialising(self) -> frozenset[str]:
        """The nodes that overwrite a variable to restore or to initialise it."""
        collections = self.meta.collection_def
        named: set[str] = set()
        for collection in collections.values():
            for content in collection.bytes_list.value:
                try:
                    named.add(variable_pb2.VariableDef.FromString(content).initializer_name)
                except Exception:
                    # Collections hold other things, too. protobuf's DecodeError is a plain Exception in some versions.
                    continue
        first = [text for name in INITIAL if name in collections for text in collections[name].node_list.value]
        signature = self.meta.signature_def
        if INITIAL[-1] in signature:
            first += [info.name for info in signature[INITIAL[-1]].outputs.values()]
        named |= self._before(first)
        return frozenset(
            node.name
            for node in self.view.nodes.values()
            if node.op in ASSIGNS and (node.name in named or self._restore_behind(node.input[1]) is not None)
        )

    # The parts.

    def _given_out(self) -> list[str]:
        return [
            info.name
            for name, signature in self.meta.signature_def.items()
            if name != INITIAL[-1]
            for info in signature.outputs.values()
        ]

    @cached_property
    def _takers(self) -> dict[tuple[str, int], list[tuple[node_def_pb2.NodeDef, int]]]:
        found: dict[tuple[str, int], list[tuple[node_def_pb2.NodeDef, int]]] = {}
        for node in self.view.nodes.values():
            for position, text in enumerate(data_inputs(node)):
                found.setdefault(Tensor.parse(text).key, []).append((node, position))
        return found

    def _before(self, texts: Iterable[str]) -> set[str]:
        """The nodes of these tensors, and all that they wait for."""
        work, seen = [Tensor.parse(text.lstrip("^")).node for text in texts], set[str]()
        while work:
            name = work.pop()
            if name in self.view.nodes and name not in seen:
                seen.add(name)
                work += [Tensor.parse(text.lstrip("^")).node for text in self.view.nodes[name].input]
        return seen

    def _restore_behind(self, text: str) -> Tensor | None:
        """The output of a restoring node that reaches a tensor through nodes with one input."""
        seen: set[str] = set()
        while text not in seen:
            seen.add(text)
            tensor = Tensor.parse(text)
            node = self.view.nodes.get(tensor.node)
            if node is not None and node.op in RESTORES:
                return tensor
            inputs = [] if node is None else data_inputs(node)
            if len(inputs) != 1:
                return None
            text = inputs[0]
        return None

    def _restored(self) -> dict[str, tuple[str, str]]:
        """Name of a variable's node -> the key that the saver restores it from, and the same with the slice."""
        found: dict[str, tuple[str, str]] = {}
        for name in self._before([self.meta.saver_def.restore_op_name]):
            node = self.view.nodes[name]
            tensor = self._restore_behind(node.input[1]) if node.op in ASSIGNS else None
            if tensor is None or self.view.nodes[tensor.node].op != "RestoreV2":
                continue
            restore = self.view.nodes[tensor.node]
            keys, parts = (self._strings(restore.input[k]) for k in (1, 2))
            if tensor.position < min(len(keys), len(parts)):
                part = parts[tensor.position]
                key = keys[tensor.position]
                found[Tensor.parse(node.input[0]).node] = (key, f"{key}{_extent(part)}")
        return found

    def _strings(self, text: str) -> list[str]:
        node = self.view.nodes.get(Tensor.parse(text).node)
        if node is None or node.op != "Const" or "value" not in node.attr:
            return []
        tensor = node.attr["value"].tensor
        size = int(np.prod([dim.size for dim in tensor.tensor_shape.dim], dtype=np.int64))
        values = [value.decode() for value in tensor.string_val]
        # The last listed value stands for all that follow.
        return values + values[-1:] * (size - len(values)) if values else [""] * size


def _shared(node: node_def_pb2.NodeDef) -> tuple[Any, ...]:
    """What nodes that stand for one variable have in common."""
    shared = node.attr["shared_name"].s if "shared_name" in node.attr else b""
    container = node.attr["container"].s if "container" in node.attr else b""
    if node.op == HANDLE_NODE:
        return (node.name,) if shared == ANONYMOUS else ("handle", container, shared)
    return ("reference", container, shared) if shared else (node.name,)


def _extent(part: str) -> str:
    """Where a slice lies, of what the saver notes as the whole shape and the slice; empty for the whole."""
    words = part.split(" ")
    ranges = words[-1].split(":")
    entire = [f"0,{size}" for size in words[:-1]]
    partial = any(r not in ("-", e) for r, e in zip(ranges, entire, strict=False))
    return f":{words[-1]}" if partial else ""


def _static(node: node_def_pb2.NodeDef) -> tuple[int, ...] | None:
    shape = node.attr["shape"].shape if "shape" in node.attr else None
    if shape is None or shape.unknown_rank or any(dim.size < 0 for dim in shape.dim):
        return None
    return tuple(dim.size for dim in shape.dim)
