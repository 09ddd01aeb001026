"""The variables of a SavedModel, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphfreeze.savedmodel.dtypes import dtype_name
from graphfreeze.savedmodel.object_graph import captured_nodes, object_paths
from graphfreeze.selection.variable import Variable

__all__ = ["list_variables"]

# Keras 3 exports hold every variable a second time below this child of the root, as an object of its own that no
# function captures: only session loaders use it.
_KERAS_DUPLICATES = "_all_variables"


def list_variables(graph: Any, stored_shape: Callable[[int], tuple[int, ...]]) -> dict[int, Variable]:
    """All variables of an object graph, sorted by name, then object path.

    Of the two objects that a Keras 3 export has for one variable, the one that functions capture is listed.

    Args:
        graph: The `SavedObjectGraph`.
        stored_shape: The shape in the checkpoint of a node, asked for where the object graph does not tell all of it.

    Returns:
        Node id -> variable.
    """
    paths = object_paths(graph)
    own_paths = object_paths(graph, skip=frozenset({_KERAS_DUPLICATES}))
    captured = captured_nodes(graph)
    nodes = {i: node.variable for i, node in enumerate(graph.nodes) if node.WhichOneof("kind") == "variable"}
    originals = {_identity(nodes[i]) for i in nodes if i in own_paths or i in captured}
    listed = {
        i: Variable(
            name=proto.name.removesuffix(":0"),
            object_path=own_paths.get(i) or paths.get(i) or f"#{i}",
            shape=stored_shape(i) if (shape := _static_shape(proto)) is None else shape,
            dtype=dtype_name(proto.dtype),
            trainable=proto.trainable,
        )
        for i, proto in nodes.items()
        if i in own_paths or i in captured or _identity(proto) not in originals
    }
    return dict(sorted(listed.items(), key=lambda item: (item[1].name, item[1].object_path)))


def _identity(proto: Any) -> tuple[str, int, bytes]:
    return proto.name, proto.dtype, proto.shape.SerializeToString(deterministic=True)


def _static_shape(proto: Any) -> tuple[int, ...] | None:
    """The shape in the object graph, or None where it is not wholly known."""
    sizes = tuple(int(d.size) for d in proto.shape.dim)
    return None if proto.shape.unknown_rank or any(size < 0 for size in sizes) else sizes
