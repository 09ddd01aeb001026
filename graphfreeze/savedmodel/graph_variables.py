"""The variables of a graph without objects, as TensorFlow 1 writes it: the nodes that hold them.

A variable is named like its node. Its object path is the key from which a session restores it, so that it is the same
in every graph that shares the checkpoint; a slice of a partitioned variable adds where it lies (`KEY:0,5:0,4`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.checkpoint import Checkpoint
from graphfreeze.savedmodel.dtypes import dtype_name
from graphfreeze.savedmodel.main_graph import node_of
from graphfreeze.savedmodel.saver_slice import OVERWRITES, variable_definitions
from graphfreeze.selection.variable import Variable

__all__ = ["REFERENCES", "GraphVariable", "Stored", "list_graph_variables"]

REFERENCES = frozenset({"Variable", "VariableV2"})
"""Operations that yield a reference to a variable, and not a handle."""

_HANDLE = "VarHandleOp"
_ANONYMOUS = b"cd2c89b7-88b7-44c8-ad83-06c2a9158347"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a value lies in the checkpoint.

    Attributes:
        key: The key.
        part: The whole shape and the slice of it, as the saver writes them (`10 4 0,5:0,4`); empty for the whole.
    """

    key: str
    part: str = ""

    @property
    def path(self) -> str:
        """How the variable is addressed: the key, with the slice where that is not the whole."""
        *sizes, extents = self.part.split(" ")
        whole = all(e in ("-", f"0,{size}") for e, size in zip(extents.split(":"), sizes, strict=False))
        return self.key if whole else f"{self.key}:{extents}"

    @property
    def index(self) -> tuple[slice, ...]:
        """The slice as an index into the whole."""
        *sizes, extents = self.part.split(" ")
        ranges = [
            (0, size) if extent == "-" else extent.split(",")
            for extent, size in zip(extents.split(":"), sizes, strict=True)
        ]
        return tuple(slice(int(start), int(start) + int(length)) for start, length in ranges)


@dataclass(frozen=True, slots=True)
class GraphVariable:
    """A variable of the main graph.

    Attributes:
        variable: What it is.
        nodes: The positions of the nodes that stand for it: several may share one variable.
        stored: Where its value lies; None where the saver does not restore it.
        is_reference: Whether the nodes yield references.
    """

    variable: Variable
    nodes: tuple[int, ...]
    stored: Stored | None
    is_reference: bool


def list_graph_variables(
    meta_graph: meta_graph_pb2.MetaGraphDef, body: Body, checkpoint: Checkpoint
) -> dict[int, GraphVariable]:
    """All variables with a static shape, sorted by name.

    Trainable are those that the collection of trainable variables lists; of a graph without any collection of
    variables, all of floating point. What is not restored is never trainable: its value is not known.

    Returns:
        Position of the first node -> variable.
    """
    groups: dict[tuple[str | bytes, ...], list[int]] = {}
    for i, node in enumerate(body.nodes):
        if node.op in REFERENCES or node.op == _HANDLE:
            groups.setdefault(_identity(node), []).append(i)
    stored = _restored(meta_graph, body)
    listed = {node_of(d.variable_name) for d in variable_definitions(meta_graph, "trainable_variables")}
    unlisted = not variable_definitions(meta_graph)
    found: dict[int, GraphVariable] = {}
    paths: set[str] = set()
    for positions in groups.values():
        node = body.nodes[positions[0]]
        names = {body.nodes[i].name for i in positions}
        place = next((stored[i] for i in positions if i in stored), None)
        shape = _shape(node, place, checkpoint)
        if shape is None:
            continue
        dtype = dtype_name(node.attr["dtype"].type)
        trains = bool(names & listed) or (unlisted and ("float" in dtype or dtype.startswith("complex")))
        path = f"#{node.name}" if place is None else place.path
        # Two variables may begin with one value.
        path = path if path not in paths else f"{path}#{node.name}"
        paths.add(path)
        variable = Variable(node.name, path, shape, dtype, trains and place is not None)
        found[positions[0]] = GraphVariable(variable, tuple(positions), place, node.op in REFERENCES)
    return dict(sorted(found.items(), key=lambda item: item[1].variable.name))


def _identity(node: Any) -> tuple[str | bytes, ...]:
    """What two nodes have in common that stand for one variable."""
    container, shared = (node.attr[k].s if k in node.attr else b"" for k in ("container", "shared_name"))
    if shared == _ANONYMOUS or (not shared and node.op != _HANDLE):
        return (node.op, node.name)
    return (node.op if node.op == _HANDLE else "reference", container, shared, "shared")


def _shape(node: Any, place: Stored | None, checkpoint: Checkpoint) -> tuple[int, ...] | None:
    """The static shape: the node's, else what the checkpoint has; None where neither says it."""
    shape = node.attr["shape"].shape if "shape" in node.attr else None
    if shape is not None and not shape.unknown_rank and all(dim.size >= 0 for dim in shape.dim):
        return tuple(int(dim.size) for dim in shape.dim)
    if place is None or place.part or place.key not in checkpoint.shapes:
        return None
    return tuple(checkpoint.shapes[place.key])


def _restored(meta_graph: meta_graph_pb2.MetaGraphDef, body: Body) -> dict[int, Stored]:
    """Position of a variable's node -> where a session restores it from."""
    pending, seen = [node_of(meta_graph.saver_def.restore_op_name)], set[str]()
    found: dict[int, Stored] = {}
    while pending:
        name = pending.pop()
        if name not in body.positions or name in seen:
            continue
        seen.add(name)
        node = body.nodes[body.positions[name]]
        pending += [node_of(reference) for reference in node.input]
        if node.op in OVERWRITES:
            holder = body.positions.get(node_of(node.input[0]))
            place = _source(body, node.input[1])
            if holder is not None and place is not None:
                found[holder] = place
    return found


def _source(body: Body, reference: str) -> Stored | None:
    """The entry that a tensor is restored from, behind operations with one data input."""
    seen: set[str] = set()
    while (i := body.positions.get(node_of(reference))) is not None and reference not in seen:
        seen.add(reference)
        node = body.nodes[i]
        if node.op == "RestoreV2":
            index = int(body.tensor(reference).rsplit(":", 1)[1])
            keys, parts = (list(_strings(body, node.input[k])) for k in (1, 2))
            return Stored(keys[index], parts[index]) if index < min(len(keys), len(parts)) else None
        inputs = [taken for taken in node.input if not taken.startswith("^")]
        if len(inputs) != 1:
            return None
        reference = inputs[0]
    return None


def _strings(body: Body, reference: str) -> Iterator[str]:
    i = body.positions.get(node_of(reference))
    if i is not None and body.nodes[i].op == "Const":
        try:
            values = tf.make_ndarray(body.nodes[i].attr["value"].tensor).reshape(-1)
            yield from [value.decode() for value in values]
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelReadError(
                f"The SavedModel is corrupt: {body.nodes[i].name!r} should name what is restored, and cannot be read. "
                "Export the model again."
            ) from error
