"""The object graph of a SavedModel: paths of its objects, and the functions that serve saving and initialising."""

from __future__ import annotations

from collections import deque

from tensorflow.core.protobuf import saved_object_graph_pb2, trackable_object_graph_pb2

from graphfreeze.errors import ModelReadError

__all__ = ["align", "captured_nodes", "concrete_functions_of", "object_paths", "resource_functions", "saver_functions"]

# Objects that are nested as deep as there are objects would ask for memory that grows with their square.
_MAX_PATH_CHARACTERS = 1 << 26
_RESOURCE_METHODS = frozenset({"_create_resource", "_initialize", "_destroy_resource"})


def object_paths(graph: saved_object_graph_pb2.SavedObjectGraph, skip: frozenset[str] = frozenset()) -> dict[int, str]:
    """The path of every object that the root reaches by child names: the shortest, and of these the first.

    Args:
        graph: The object graph.
        skip: Children of the root to leave out.

    Returns:
        Node id -> local names joined by `/`; the root's path is empty. A slot variable of an optimizer is
        `OPTIMIZER/SLOT/VARIABLE`.
    """
    paths: dict[int, str] = {0: ""} if graph.nodes else {}
    queue = deque(paths)
    length = 0
    while queue:
        parent = queue.popleft()
        for child in graph.nodes[parent].children:
            if child.node_id in paths or (parent == 0 and child.local_name in skip):
                continue
            paths[child.node_id] = f"{paths[parent]}/{child.local_name}" if parent else child.local_name
            length += len(paths[child.node_id])
            if length > _MAX_PATH_CHARACTERS:
                raise ModelReadError(
                    f"The object graph is corrupt: the paths of its objects have more than {_MAX_PATH_CHARACTERS} "
                    "characters. Export the model again."
                )
            queue.append(child.node_id)
    for parent, path in list(paths.items()):
        for slot in graph.nodes[parent].slot_variables:
            original = paths.get(slot.original_variable_node_id)
            if original is not None:
                paths.setdefault(slot.slot_variable_node_id, f"{path}/{slot.slot_name}/{original}")
    return paths


def align(
    graph: saved_object_graph_pb2.SavedObjectGraph,
    other: trackable_object_graph_pb2.TrackableObjectGraph,
    start: int = 0,
) -> dict[int, int]:
    """Match the nodes of a SavedModel's object graph with those of its checkpoint's, whose ids differ.

    Both are walked from their roots at once, along children of the same name, as TensorFlow does when it restores.

    Args:
        graph: The SavedModel's object graph.
        other: The checkpoint's.
        start: The node of `other` that stands for the SavedModel's root.

    Returns:
        Node id in `graph` -> node id in `other`.
    """
    if not graph.nodes or not other.nodes:
        return {}
    matched = {0: start}
    queue = deque([0])
    while queue:
        node = queue.popleft()
        named = {child.local_name: child.node_id for child in other.nodes[matched[node]].children}
        for child in graph.nodes[node].children:
            if child.node_id not in matched and child.local_name in named:
                matched[child.node_id] = named[child.local_name]
                queue.append(child.node_id)
    for node, counterpart in list(matched.items()):
        slots = {
            (slot.slot_name, slot.original_variable_node_id): slot.slot_variable_node_id
            for slot in other.nodes[counterpart].slot_variables
        }
        for slot in graph.nodes[node].slot_variables:
            found = slots.get((slot.slot_name, matched.get(slot.original_variable_node_id, -1)))
            if found is not None:
                matched.setdefault(slot.slot_variable_node_id, found)
    return matched


def concrete_functions_of(graph: saved_object_graph_pb2.SavedObjectGraph, node_id: int) -> list[str]:
    """The names of the concrete functions that a function object stands for; empty for any other object."""
    node = graph.nodes[node_id]
    kind = node.WhichOneof("kind")
    if kind == "function":
        return list(node.function.concrete_functions)
    if kind == "bare_concrete_function":
        return [node.bare_concrete_function.concrete_function_name]
    return []


def captured_nodes(graph: saved_object_graph_pb2.SavedObjectGraph) -> set[int]:
    """The ids of all nodes that concrete functions capture."""
    return {node for function in graph.concrete_functions.values() for node in function.bound_inputs}


def saver_functions(graph: saved_object_graph_pb2.SavedObjectGraph) -> set[str]:
    """Concrete functions with which objects save and restore themselves."""
    found: set[str] = set()
    for node in graph.nodes:
        for saveable in node.saveable_objects.values():
            found.update(concrete_functions_of(graph, saveable.save_function))
            found.update(concrete_functions_of(graph, saveable.restore_function))
    return found


def resource_functions(graph: saved_object_graph_pb2.SavedObjectGraph) -> set[str]:
    """Concrete functions that create, initialise and destroy resources such as tables."""
    return {
        function
        for node in graph.nodes
        if node.WhichOneof("kind") == "resource"
        for child in node.children
        if child.local_name in _RESOURCE_METHODS
        for function in concrete_functions_of(graph, child.node_id)
    }
