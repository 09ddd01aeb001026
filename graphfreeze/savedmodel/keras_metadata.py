"""What Keras 2 notes of its layers in a SavedModel, from which `tf_keras.models.load_model` builds them anew.

TensorFlow 2.5 and later keep the notes in `keras_metadata.pb`; TensorFlow 2.0 to 2.4 kept them in the object graph.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_object_graph_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.savedmodel.object_graph import concrete_functions_of
from graphfreeze.savedmodel.reachable import reachable

__all__ = [
    "KERAS_METADATA",
    "KerasNote",
    "is_keras_2",
    "keras_notes",
    "noted_constraints",
    "objects_reaching",
    "read_keras_metadata",
]

KERAS_METADATA = "keras_metadata.pb"

# What load_model knows how to build; tf.saved_model.save writes the same names with empty notes, which it refuses.
_IDENTIFIERS = frozenset(
    f"_tf_keras_{kind}" for kind in ("input_layer", "layer", "metric", "model", "network", "rnn_layer", "sequential")
)


@dataclass(frozen=True)
class KerasNote:
    """What Keras 2 notes of one layer, model or metric.

    Attributes:
        node: Its node in the object graph.
        message: The message whose fields `identifier` and `metadata` hold the note; changing it changes the model.
        origin: Where it lies, for messages.
    """

    node: int
    message: Any
    origin: str

    def read(self) -> dict[str, Any]:
        """The note.

        Raises:
            ModelReadError: It is not a JSON object.
        """
        try:
            metadata = json.loads(self.message.metadata)
        except (ValueError, RecursionError) as error:
            raise ModelReadError(
                f"{self.origin}: what Keras notes of object {self.node} is not JSON: {error}"
            ) from None
        if not isinstance(metadata, dict):
            raise ModelReadError(f"{self.origin}: what Keras notes of object {self.node} is not a JSON object")
        return metadata

    def write(self, metadata: dict[str, Any]) -> None:
        """Replace the note."""
        self.message.metadata = json.dumps(metadata)


def read_keras_metadata(file: Path) -> Any | None:
    """The `SavedMetadata` in a `keras_metadata.pb`, or None where there is no such file.

    Raises:
        ModelReadError: The file is corrupt, or cannot be read.
    """
    if not file.is_file():
        return None
    saved = _SAVED_METADATA()
    try:
        saved.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ModelReadError(f"{file} is corrupt: it is not what Keras 2 writes. Save the model again.") from error
    except OSError as error:
        raise ModelReadError(f"{file} cannot be read: {error.strerror}.") from error
    return saved


def keras_notes(graph: Any, saved: Any | None, directory: Path) -> list[KerasNote]:
    """All notes of a model, those in the object graph (of a model, as TensorFlow 2.0 to 2.4 saved it) and in the file.

    Args:
        graph: The `SavedObjectGraph`.
        saved: The `SavedMetadata`, if there is one.
        directory: The model's directory, for messages.

    Raises:
        ModelReadError: The file notes something of an object that does not exist.
    """
    in_graph = [
        KerasNote(i, node.user_object, f"{directory / 'saved_model.pb'}")
        for i, node in enumerate(graph.nodes)
        if node.user_object.identifier in _IDENTIFIERS and node.user_object.metadata
    ]
    file = directory / KERAS_METADATA
    in_file = [KerasNote(entry.node_id, entry, f"{file}") for entry in ([] if saved is None else saved.nodes)]
    missing = [note.node for note in in_file if not 0 <= note.node < len(graph.nodes)]
    if missing:
        raise ModelReadError(f"{file} is corrupt: it describes object {missing[0]}, which the model lacks.")
    return in_graph + in_file


def is_keras_2(graph: Any, directory: Path) -> bool:
    """Whether `tf_keras.models.load_model` would build layers anew from this model."""
    return (directory / KERAS_METADATA).is_file() or bool(keras_notes(graph, None, directory))


def noted_constraints(notes: Iterable[KerasNote]) -> list[str]:
    """Constraints of variables, of which Keras 2 saves nothing but these notes: `dense.kernel_constraint`."""
    configs = [config for note in notes if isinstance(config := note.read().get("config"), dict)]
    return [
        f"{config.get('name')}.{key}"
        for config in configs
        for key, value in config.items()
        if key.endswith("_constraint") and value is not None
    ]


def objects_reaching(graph: saved_object_graph_pb2.SavedObjectGraph, variables: Collection[int]) -> set[int]:
    """The objects in whose subtree one of these variables lies: as an object, or captured by a function."""
    holders: defaultdict[int, list[int]] = defaultdict(list)
    for i, node in enumerate(graph.nodes):
        for child in node.children:
            holders[child.node_id].append(i)
        functions = concrete_functions_of(graph, i)
        if node.WhichOneof("kind") == "captured_tensor":
            functions = [node.captured_tensor.concrete_function]
        for function in functions:
            if function in graph.concrete_functions:
                for captured in graph.concrete_functions[function].bound_inputs:
                    holders[captured].append(i)
    return reachable(variables, holders)


def _saved_metadata_class() -> Any:
    """The message class of `keras_metadata.pb`, which TensorFlow has in private modules only."""
    file = descriptor_pb2.FileDescriptorProto(
        name="graphfreeze/keras_metadata.proto", package="graphfreeze.keras2", syntax="proto3"
    )
    entry = file.message_type.add(name="SavedObject")
    field = descriptor_pb2.FieldDescriptorProto
    # The version, number 6, is left to the unknown fields, which are kept as they are.
    fields = {
        "node_id": (2, field.TYPE_INT32),
        "identifier": (4, field.TYPE_STRING),
        "metadata": (5, field.TYPE_STRING),
    }
    for name, (number, kind) in {**fields, "node_path": (3, field.TYPE_STRING)}.items():
        entry.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL)
    holder = file.message_type.add(name="SavedMetadata")
    nodes = holder.field.add(name="nodes", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED)
    nodes.type_name = ".graphfreeze.keras2.SavedObject"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("graphfreeze.keras2.SavedMetadata"))


_SAVED_METADATA = _saved_metadata_class()
