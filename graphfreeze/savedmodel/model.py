"""A SavedModel on disk as a value: its protos, variables and endpoints."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.framework import function_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, saved_object_graph_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.body import Body, function_body, main_graph_body
from graphfreeze.savedmodel.checkpoint import Checkpoint
from graphfreeze.savedmodel.directory import check_assets
from graphfreeze.savedmodel.endpoints import Endpoint, list_endpoints
from graphfreeze.savedmodel.files import check_variable_files, read_saved_model
from graphfreeze.savedmodel.graph_variables import GraphVariable, list_graph_variables
from graphfreeze.savedmodel.main_graph import MAIN_GRAPH, signature_nodes, signature_outputs
from graphfreeze.savedmodel.meta_graphs import choose_graph, single_graph
from graphfreeze.savedmodel.references import check_operations, check_references
from graphfreeze.savedmodel.saver_slice import initialising_nodes, saving_nodes
from graphfreeze.savedmodel.stored_values import check_stored, check_values
from graphfreeze.savedmodel.variables import list_variables
from graphfreeze.selection.variable import Variable

__all__ = ["SavedModel"]


class SavedModel:
    """A SavedModel. Nothing of it is executed, and nothing here changes it.

    One of TensorFlow 2 has an object graph, and functions that take the handles of variables. One of TensorFlow 1 has
    neither: its variables are nodes of the main graph, which reads them, trains them and saves them. Where the latter
    is asked for by a number, it is the position of that node.

    Args:
        proto: The parsed `saved_model.pb`.
        directory: The directory whose `variables/` hold the values.
        tags: Of several graphs, those of the one that is meant.

    Attributes:
        proto: The SavedModel with that graph alone.
        whole: The SavedModel with all its graphs.
        index: The position of the graph among them.
        tags: The tags of the graph, sorted; None where there is only one.

    Raises:
        UsageError: None of the graphs has these tags, or there are several graphs and no tags are given.
        UnsupportedError: It has several graphs, one of them with objects.
        ModelReadError: It names what is not there, or the checkpoint's files are incomplete.
    """

    def __init__(
        self, proto: saved_model_pb2.SavedModel, directory: str | PathLike[str], tags: Iterable[str] | None = None
    ) -> None:
        self.directory = Path(directory)
        self.whole = proto
        self.index = choose_graph(proto, tags, self.directory)
        self.proto = single_graph(proto, self.index)
        self.tags = tuple(sorted(self.meta_graph.meta_info_def.tags)) if len(proto.meta_graphs) > 1 else None
        check_references(self.meta_graph, self.directory)
        if not self.has_objects:
            check_operations(self.meta_graph.graph_def, self.directory)
        check_assets(self.meta_graph, self.directory)
        if any(node.WhichOneof("kind") == "variable" for node in self.object_graph.nodes):
            check_variable_files(self.directory)
        self.checkpoint = Checkpoint(self.directory)
        self._bodies: dict[str, Body] = {}
        self._read_paths: set[str] = set()
        if not self.has_objects and any(variable.stored for variable in self.graph_variables.values()):
            check_variable_files(self.directory)

    @classmethod
    def load(cls, path: str | PathLike[str], tags: Iterable[str] | None = None) -> SavedModel:
        """Read the SavedModel in a directory, or of several graphs in it the one with these tags.

        Raises:
            UsageError: The tags choose no graph.
            ModelReadError: It is missing, incomplete, corrupt, or something else.
            UnsupportedError: It is a SavedModel of a kind that is not supported.
        """
        directory = Path(path)
        return cls(read_saved_model(directory), directory, tags)

    @cached_property
    def others(self) -> tuple[SavedModel, ...]:
        """The SavedModel again, as each of its other graphs."""
        graphs = (set(graph.meta_info_def.tags) for i, graph in enumerate(self.whole.meta_graphs) if i != self.index)
        return tuple(SavedModel(self.whole, self.directory, tags) for tags in graphs)

    @property
    def meta_graph(self) -> meta_graph_pb2.MetaGraphDef:
        """Its graph, with functions, signatures and object graph."""
        return self.proto.meta_graphs[0]

    @property
    def object_graph(self) -> saved_object_graph_pb2.SavedObjectGraph:
        """Its object graph."""
        return self.meta_graph.object_graph_def

    @property
    def has_objects(self) -> bool:
        """Whether it has an object graph, as TensorFlow 2 writes it."""
        return len(self.object_graph.nodes) > 0

    @cached_property
    def functions(self) -> dict[str, function_pb2.FunctionDef]:
        """Its function library, by name."""
        return {function.signature.name: function for function in self.meta_graph.graph_def.library.function}

    @cached_property
    def nodes(self) -> int:
        """How many nodes the main graph and all functions have."""
        return len(self.meta_graph.graph_def.node) + sum(len(f.node_def) for f in self.functions.values())

    def body(self, function: str) -> Body:
        """The indexed body of a function of the library, or the main graph."""
        if function == MAIN_GRAPH:
            return self.main_body
        if function not in self._bodies:
            self._bodies[function] = function_body(self.functions[function])
        return self._bodies[function]

    @cached_property
    def main_body(self) -> Body:
        """The indexed main graph."""
        nodes = self.meta_graph.graph_def.node
        if self.has_objects:
            return main_graph_body(nodes)
        returned = signature_outputs(self.meta_graph).values()
        return main_graph_body(nodes, returned, saving_nodes(main_graph_body(nodes), returned))

    @cached_property
    def graph_variables(self) -> dict[int, GraphVariable]:
        """The variables of the main graph, by their first node's position; of a SavedModel with objects, none."""
        if self.has_objects:
            return {}
        return list_graph_variables(self.meta_graph, self.main_body, self.checkpoint)

    @property
    def references_of_signatures(self) -> list[str]:
        """The names of the reference variables that signatures depend on, sorted."""
        nodes = signature_nodes(self.meta_graph) if not self.has_objects else set()
        found = (self.main_body.nodes[i].name for v in self.graph_variables.values() if v.is_reference for i in v.nodes)
        return sorted(nodes.intersection(found))

    @cached_property
    def initialising(self) -> frozenset[int]:
        """The positions of the main graph's nodes that initialise or restore variables, in a graph without objects."""
        return frozenset() if self.has_objects else initialising_nodes(self.meta_graph, self.main_body)

    @cached_property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Its callables: the root's functions in their order, then the signatures by name."""
        return list_endpoints(self.meta_graph)

    @cached_property
    def variables_by_node(self) -> dict[int, Variable]:
        """Its variables by object node, each once, sorted by name, then object path."""
        if not self.has_objects:
            check_stored(self.graph_variables.values(), self.checkpoint)
            return {node: found.variable for node, found in self.graph_variables.items()}
        variables = list_variables(self.object_graph, self._stored_shape)
        if variables:
            check_values(variables, self.key_of_node, self.checkpoint)
        return variables

    @property
    def variables(self) -> tuple[Variable, ...]:
        """Its variables, each once, sorted by name, then object path."""
        return tuple(self.variables_by_node.values())

    @cached_property
    def key_of_node(self) -> dict[int, str]:
        """The checkpoint key under which each object's value lies."""
        if not self.has_objects:
            return {node: found.stored.key for node, found in self.graph_variables.items() if found.stored is not None}
        return self.checkpoint.keys_of(self.object_graph)

    def node_id(self, variable: Variable) -> int:
        """The object node of a variable of this model.

        Raises:
            KeyError: The model has no variable at that object path.
        """
        return self._node_of_path[variable.object_path]

    def read(self, variable: Variable) -> npt.NDArray[Any]:
        """The value of a variable in the checkpoint, of its shape and dtype.

        Raises:
            ModelReadError: The checkpoint does not hold it, or is corrupt.
        """
        key = self.key_of_node.get(self.node_id(variable))
        if key is None:
            raise ModelReadError(
                f"{self.checkpoint.prefix} holds no value for {variable.name} ({variable.object_path}). "
                "Export the model again."
            )
        place = self.graph_variables[self.node_id(variable)].stored if not self.has_objects else None
        if place is not None and place.part:
            return self.checkpoint.read_part(key, place.part, variable.dtype)
        value: npt.NDArray[Any] = np.asarray(self.checkpoint.read(key))
        self._read_paths.add(variable.object_path)
        return value

    def was_read(self, variable: Variable) -> bool:
        """Whether the value of a variable was read before, and with that its checksum compared."""
        return variable.object_path in self._read_paths

    def _stored_shape(self, node: int) -> tuple[int, ...]:
        if node not in self.key_of_node:
            raise ModelReadError(
                f"{self.checkpoint.prefix} holds no value for object {node}, whose shape is not known otherwise. "
                "Export the model again."
            )
        return tuple(self.checkpoint.shapes[self.key_of_node[node]])

    @cached_property
    def _node_of_path(self) -> dict[str, int]:
        return {variable.object_path: node for node, variable in self.variables_by_node.items()}
