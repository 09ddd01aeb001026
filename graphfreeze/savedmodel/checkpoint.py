"""The checkpoint of a SavedModel: which key holds which object's value."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_object_graph_pb2, trackable_object_graph_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.checkpoint_index import read_index
from graphfreeze.savedmodel.files import VARIABLES_PREFIX, check_variable_files
from graphfreeze.savedmodel.object_graph import align
from graphfreeze.savedmodel.references import broken_objects
from graphfreeze.selection.bool_bytes import odd_bool

__all__ = ["OBJECT_GRAPH_KEY", "VARIABLE_VALUE", "Checkpoint"]

OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VARIABLE_VALUE = "VARIABLE_VALUE"
# Those of which numpy takes TensorFlow's memory without a copy.
_SHARED_DTYPES = ("float16", "float32", "float64")


class Checkpoint:
    """The files `variables/variables.*` of a SavedModel, or those of any other checkpoint, opened on first use.

    Args:
        directory: The SavedModel's directory, or the checkpoint's.
        stem: How the names of the index and of all shards begin, from there.
    """

    def __init__(self, directory: Path, stem: str = VARIABLES_PREFIX) -> None:
        self.directory = directory
        self.stem = stem

    @property
    def prefix(self) -> str:
        """The path that the index and all shards begin with."""
        return str(self.directory / self.stem)

    @cached_property
    def shapes(self) -> dict[str, list[int]]:
        """Every key of the checkpoint, sorted, with its shape."""
        shapes: dict[str, list[int]] = self._reader.get_variable_to_shape_map()
        return dict(sorted(shapes.items()))

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """Every key of the checkpoint with the name of its dtype."""
        dtypes: dict[str, Any] = self._reader.get_variable_to_dtype_map()
        return {key: dtypes[key].name for key in sorted(dtypes)}

    def keys_of(self, graph: saved_object_graph_pb2.SavedObjectGraph, start: int = 0) -> dict[int, str]:
        """Node id in the SavedModel's object graph -> key of its value, for every object that has one.

        Args:
            graph: The SavedModel's object graph.
            start: The node of the checkpoint's own object graph that stands for the SavedModel's root.

        Raises:
            ModelReadError: The checkpoint holds no object graph.
        """
        attributes = self.attributes_of(graph, start)
        return {node: key for (node, name), key in attributes.items() if name == VARIABLE_VALUE}

    def attributes_of(
        self, graph: saved_object_graph_pb2.SavedObjectGraph, start: int = 0
    ) -> dict[tuple[int, str], str]:
        """As `keys_of`, for all that objects save: node id and attribute -> key, or what its keys begin with."""
        return {
            (node, attribute.name): attribute.checkpoint_key
            for node, counterpart in align(graph, self._objects, start).items()
            for attribute in self._objects.nodes[counterpart].attributes
        }

    @property
    def objects(self) -> trackable_object_graph_pb2.TrackableObjectGraph:
        """The object graph that was saved with the values.

        Raises:
            ModelReadError: The checkpoint holds none.
        """
        return self._objects

    def without(self, graph: saved_object_graph_pb2.SavedObjectGraph) -> tuple[bytes | None, frozenset[str]]:
        """What a rewrite added to the checkpoint: masks and values, below a last child of the root.

        Args:
            graph: The original's object graph, which lacks that child; one that is empty has nothing added.

        Returns:
            The checkpoint's object graph without it (None where there is none), and the keys that belong to it.
        """
        if not graph.nodes:
            return None, frozenset()
        own = {child.local_name for child in graph.nodes[0].children}
        last = self.objects.nodes[0].children[-1] if self.objects.nodes[0].children else None
        if last is None or last.local_name in own or not last.local_name.startswith("graphfreeze"):
            return None, frozenset()
        keys = {a.checkpoint_key for node in self.objects.nodes[last.node_id :] for a in node.attributes}
        objects = trackable_object_graph_pb2.TrackableObjectGraph()
        objects.CopyFrom(self.objects)
        del objects.nodes[last.node_id :]
        del objects.nodes[0].children[-1]
        return objects.SerializeToString(deterministic=True), frozenset(keys)

    def read(self, key: str) -> npt.NDArray[Any]:
        """The value under a key, of the shape and dtype that it was saved with.

        Raises:
            ModelReadError: The key is missing, or its shard is missing or corrupt.
        """
        try:
            dtype = self.dtypes.get(key)
            value = self._reader.get_tensor(key) if dtype not in _SHARED_DTYPES else _restore(self.prefix, key, dtype)
        except (tf.errors.OpError, RuntimeError, LookupError, ValueError) as error:
            raise ModelReadError(
                f"{self.prefix} cannot yield the value {key!r}: {_first_line(error)} Export the model again."
            ) from error
        # numpy's own byte strings would drop trailing zeros.
        array = np.asarray(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)
        return self._without_odd_bools(key, array)

    def read_part(self, key: str, part: str, dtype: str) -> npt.NDArray[Any]:
        """A slice of a value.

        Args:
            key: The key.
            part: The shape of the whole, and the slice, as a saver of TensorFlow 1 writes them (`10 4 0,5:0,4`).
            dtype: The value's dtype.

        Raises:
            ModelReadError: It is missing, or its shard is missing or corrupt.
        """
        if key not in self._reader.get_variable_to_shape_map():
            raise ModelReadError(f"{self.prefix} lacks the value {key!r}. Export the model again.")
        try:
            with tf.device("CPU:0"):
                (value,) = tf.raw_ops.RestoreV2(
                    prefix=self.prefix, tensor_names=[key], shape_and_slices=[part], dtypes=[tf.as_dtype(dtype)]
                )
        except tf.errors.OpError as error:
            raise ModelReadError(
                f"{self.prefix} cannot yield {part!r} of the value {key!r}: {_first_line(error)} "
                "Export the model again."
            ) from error
        return self._without_odd_bools(key, value.numpy())

    def _without_odd_bools(self, key: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if (odd := odd_bool(array)) is not None:
            raise ModelReadError(
                f"{self.prefix}: the value {key!r} holds the byte {odd}, expected bools, each a byte that is 0 or 1. "
                "Export the model again."
            )
        return array

    @cached_property
    def _objects(self) -> trackable_object_graph_pb2.TrackableObjectGraph:
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        try:
            graph.ParseFromString(self.read(OBJECT_GRAPH_KEY).item())
            broken = broken_objects(graph.nodes)
        except (DecodeError, TypeError, ValueError) as error:
            broken = str(error)
        if broken:
            raise ModelReadError(f"{self.prefix} holds a corrupt object graph: {broken}. Export the model again.")
        return graph

    @cached_property
    def _reader(self) -> Any:
        check_variable_files(self.directory, self.stem)
        # TensorFlow's reader aborts the process where an entry is absurd.
        read_index(self.prefix)
        try:
            return tf.train.load_checkpoint(self.prefix)
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            raise ModelReadError(
                f"{self.prefix}.index cannot be read: {_first_line(error)} Export the model again."
            ) from error


def _restore(prefix: str, key: str, dtype: str) -> npt.NDArray[Any]:
    """A value as TensorFlow has it in memory. Other threads go on meanwhile, which a reader of checkpoints stops."""
    with tf.init_scope(), tf.device("CPU:0"):
        (value,) = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[key], shape_and_slices=[""], dtypes=[tf.as_dtype(dtype)]
        )
    return np.asarray(memoryview(value))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0].rstrip(".") + "."
