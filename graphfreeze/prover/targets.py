"""The plan's variables found again in the object graph."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from tensorflow.core.framework import types_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_object_graph_pb2, trackable_object_graph_pb2

from graphfreeze.prover.failure import refuse
from graphfreeze.prover.session_graph import SessionGraph, SessionVariable
from graphfreeze.selection.plan import FreezePlan, FrozenVariable
from graphfreeze.selection.variable import Variable

__all__ = ["NUMPY_NAMES", "Target", "find_targets", "objects_at", "variable_targets"]

NUMPY_NAMES: dict[int, str] = {
    types_pb2.DT_HALF: "float16",
    types_pb2.DT_BFLOAT16: "bfloat16",
    types_pb2.DT_FLOAT: "float32",
    types_pb2.DT_DOUBLE: "float64",
    types_pb2.DT_COMPLEX64: "complex64",
    types_pb2.DT_COMPLEX128: "complex128",
    types_pb2.DT_BOOL: "bool",
    types_pb2.DT_INT8: "int8",
    types_pb2.DT_INT16: "int16",
    types_pb2.DT_INT32: "int32",
    types_pb2.DT_INT64: "int64",
    types_pb2.DT_UINT8: "uint8",
    types_pb2.DT_UINT16: "uint16",
    types_pb2.DT_UINT32: "uint32",
    types_pb2.DT_UINT64: "uint64",
}
"""numpy's (with ml_dtypes) name of each dtype that a masked read can have."""


@dataclass(frozen=True)
class Target:
    """A targeted variable.

    Attributes:
        node_id: Its node in the object graph.
        frozen: What the plan says of it.
        dtype: Its DataType.
        slot_of: The targeted variable whose optimizer slot this is; None for a targeted variable itself.
        own_bytes: Where the rewritten model's checkpoint has the value that the variable is frozen at: the file, and
            the offset in it. None where the plan holds the frozen values.
    """

    node_id: int
    frozen: FrozenVariable
    dtype: int
    slot_of: Target | None = None
    own_bytes: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """The variable's name."""
        return self.frozen.variable.name

    @property
    def shape(self) -> tuple[int, ...]:
        """The variable's shape."""
        return self.frozen.variable.shape


def objects_at(
    graph: saved_object_graph_pb2.SavedObjectGraph | trackable_object_graph_pb2.TrackableObjectGraph, path: str
) -> set[int]:
    """All nodes that the path leads to from the root.

    Child names may themselves contain `/`. An optimizer's slot variable is `OPTIMIZER/SLOT/VARIABLE`.
    """
    found: set[int] = set()
    seen: set[tuple[int, str]] = set()
    work = [(0, path)]
    while work:
        state = work.pop()
        if state in seen:
            continue
        seen.add(state)
        node_id, rest = state
        for child in graph.nodes[node_id].children:
            if child.local_name == rest:
                found.add(child.node_id)
            elif rest.startswith(f"{child.local_name}/"):
                work.append((child.node_id, rest[len(child.local_name) + 1 :]))
        for slot in graph.nodes[node_id].slot_variables:
            name, _, variable = rest.partition("/")
            if name == slot.slot_name and slot.original_variable_node_id in objects_at(graph, variable):
                found.add(slot.slot_variable_node_id)
    return found


def variable_targets(meta: meta_graph_pb2.MetaGraphDef, like: Target, exclude: Container[int]) -> dict[int, Target]:
    """Every variable of a targeted variable's shape, with its mask; without some object nodes."""
    found = {}
    trained = _listed_as_trainable(meta)
    for node_id, session_variable in _session_variables(meta).items():
        if node_id not in exclude and session_variable.shape == like.shape:
            dtype = NUMPY_NAMES.get(session_variable.dtype, "")
            name = session_variable.nodes[0]
            # A graph that lists no variables at all does not say which are weights.
            trains = (
                ("float" in dtype or "complex" in dtype)
                if trained is None
                else bool(trained.intersection(session_variable.nodes))
            )
            trains = trains and session_variable.path is not None
            variable = Variable(name, session_variable.path or f"#{name}", like.shape, dtype, trains)
            found[node_id] = Target(node_id, like.frozen.held_by(variable), session_variable.dtype)
    for node_id, node in enumerate(meta.object_graph_def.nodes):
        if node.WhichOneof("kind") != "variable" or node_id in exclude or node.variable.shape.unknown_rank:
            continue
        shape = tuple(dim.size for dim in node.variable.shape.dim)
        if shape == like.shape:
            dtype = NUMPY_NAMES.get(node.variable.dtype, "")
            name = node.variable.name.removesuffix(":0")
            variable = Variable(name, f"#{node_id}", shape, dtype, node.variable.trainable)
            found[node_id] = Target(node_id, like.frozen.held_by(variable), node.variable.dtype)
    return found


def _listed_as_trainable(meta: meta_graph_pb2.MetaGraphDef) -> set[str] | None:
    """The names of the nodes that a graph lists as trainable variables; None where it lists no variables."""
    lists: dict[str, set[str]] = {}
    for name, collection in meta.collection_def.items():
        for content in collection.bytes_list.value:
            definition = variable_pb2.VariableDef()
            try:
                definition.ParseFromString(content)
            except Exception:
                # Collections hold other things, too. protobuf's DecodeError is a plain Exception in some versions.
                continue
            if definition.variable_name and definition.initializer_name:
                lists.setdefault(name, set()).add(definition.variable_name.removesuffix(":0"))
    return lists.get("trainable_variables", set()) if lists else None


def _session_variables(meta: meta_graph_pb2.MetaGraphDef) -> dict[int, SessionVariable]:
    """The variables of a graph without objects; none of any other."""
    return {} if meta.object_graph_def.nodes else SessionGraph(meta).variables


def find_targets(
    meta: meta_graph_pb2.MetaGraphDef, plan: FreezePlan, own: Mapping[str, tuple[str, int]]
) -> dict[int, Target]:
    """Find each variable of the plan in the object graph, or among the nodes of a graph without objects.

    Args:
        meta: The original's meta graph.
        plan: What is frozen.
        own: By object path, where values lie that variables are frozen at.

    Returns:
        The targets by object node; without objects, by the position of the variable's node.

    Raises:
        VerificationError: The plan names something that is not that variable in the original.
    """
    graph = meta.object_graph_def
    if not graph.nodes:
        return _find_nodes(meta, plan)
    targets: dict[int, Target] = {}
    for frozen in plan.variables:
        variable = frozen.variable
        found = {n for n in objects_at(graph, variable.object_path) if graph.nodes[n].WhichOneof("kind") == "variable"}
        if len(found) != 1:
            refuse(
                f"expected one variable at object path {variable.object_path!r}, found {len(found)}",
                variable=variable.name,
            )
        node_id = found.pop()
        saved = graph.nodes[node_id].variable
        shape = tuple(dim.size for dim in saved.shape.dim)
        dtype = NUMPY_NAMES.get(saved.dtype, f"DataType {saved.dtype}")
        if (shape, dtype) != (variable.shape, variable.dtype) or saved.shape.unknown_rank:
            refuse(
                f"expected shape {variable.shape} and dtype {variable.dtype} at object path "
                f"{variable.object_path!r}, found {shape} and {dtype}",
                variable=variable.name,
            )
        if node_id in targets:
            refuse("expected each variable once in the plan, found it twice", variable=variable.name)
        targets[node_id] = Target(node_id, frozen, saved.dtype, own_bytes=own.get(variable.object_path))
    return targets


def _find_nodes(meta: meta_graph_pb2.MetaGraphDef, plan: FreezePlan) -> dict[int, Target]:
    """Find each variable of the plan by its name and by what the saver restores it from."""
    targets: dict[int, Target] = {}
    for frozen in plan.variables:
        variable = frozen.variable
        found = [v for v in _session_variables(meta).values() if v.nodes[0] == variable.name and v.path is not None]
        if len(found) != 1 or variable.object_path not in (found[0].path, f"{found[0].path}#{variable.name}"):
            refuse(
                f"expected one variable that is restored from {variable.object_path!r}, found {len(found)}",
                variable=variable.name,
            )
        shape, dtype = found[0].shape, NUMPY_NAMES.get(found[0].dtype, f"DataType {found[0].dtype}")
        if shape not in (None, variable.shape) or dtype != variable.dtype:
            refuse(
                f"expected shape {variable.shape} and dtype {variable.dtype}, found {shape} and {dtype}",
                variable=variable.name,
            )
        if found[0].node_id in targets:
            refuse("expected each variable once in the plan, found it twice", variable=variable.name)
        targets[found[0].node_id] = Target(found[0].node_id, frozen, found[0].dtype)
    return targets
