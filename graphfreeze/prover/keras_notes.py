"""What Keras 2 notes of its objects, as written in both models, without an opinion on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_object_graph_pb2

from graphfreeze.errors import ModelReadError
from graphfreeze.prover.failure import refuse

__all__ = ["Note", "is_noted", "notes_in_file", "notes_in_graph"]

KINDS = ("input_layer", "layer", "metric", "model", "network", "rnn_layer", "sequential")
NODE_ID, IDENTIFIER, METADATA = 2, 4, 5
"""The fields of an entry of `keras_metadata.pb` that are looked into."""


@dataclass(frozen=True)
class Note:
    """What is noted of one object.

    Attributes:
        node: Its node in the object graph.
        identifier: What kind of object it is.
        metadata: JSON.
        rest: All else that the entry holds.
    """

    node: int
    identifier: str
    metadata: str
    rest: tuple[Any, ...] = ()

    def content(self) -> dict[str, Any]:
        """The metadata, so that `==` tells 1, 1.0 and true apart.

        Raises:
            ValueError: It is not a JSON object, or names something twice.
        """
        found = json.loads(
            self.metadata,
            object_pairs_hook=_unique,
            parse_int=lambda text: ("int", int(text)),
            parse_float=lambda text: ("float", repr(float(text))),
            parse_constant=lambda text: ("constant", text),
        )
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
        return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


def is_noted(node: saved_object_graph_pb2.SavedObject) -> bool:
    """Whether the object graph itself says how Keras 2 makes an object, as TensorFlow 2.0 to 2.4 wrote it."""
    kinds = {f"_tf_keras_{kind}" for kind in KINDS}
    return node.user_object.identifier in kinds and node.user_object.metadata != ""


def notes_in_graph(
    before: saved_object_graph_pb2.SavedObjectGraph, after: saved_object_graph_pb2.SavedObjectGraph
) -> list[tuple[Note, Note]]:
    """The notes in both object graphs, for the same objects."""
    return [
        (
            Note(i, old.user_object.identifier, old.user_object.metadata),
            Note(i, new.user_object.identifier, new.user_object.metadata),
        )
        for i, (old, new) in enumerate(zip(before.nodes, after.nodes, strict=True))
        if is_noted(old)
    ]


def notes_in_file(before: Path, after: Path) -> list[tuple[Note, Note]]:
    """The notes in both `keras_metadata.pb`, entry by entry.

    Raises:
        VerificationError: The files do not list the same objects, or the rewritten one is corrupt.
        ModelReadError: The original's is corrupt.
    """
    try:
        old = _notes(before.read_bytes())
    except ValueError as error:
        raise ModelReadError(f"{before} is corrupt: {error}. Save the model again.") from error
    try:
        new = _notes(after.read_bytes())
    except ValueError as error:
        refuse(f"expected what Keras 2 writes in {after.name}, found {error}", file=after.name)
    if len(old) != len(new):
        refuse(f"expected {len(old)} entries in {after.name}, found {len(new)}", file=after.name)
    return list(zip(old, new, strict=True))


def _notes(content: bytes) -> list[Note]:
    notes = []
    for number, entry in _fields(content):
        if number != 1 or not isinstance(entry, bytes):
            raise ValueError(f"field {number}, which is no entry")
        fields = list(_fields(entry))
        read = {key: value for key, value in fields if key in (NODE_ID, IDENTIFIER, METADATA)}
        node, identifier, metadata = read.get(NODE_ID, 0), read.get(IDENTIFIER, b""), read.get(METADATA, b"")
        if not (isinstance(node, int) and isinstance(identifier, bytes) and isinstance(metadata, bytes)):
            raise ValueError("an entry with fields of other types")
        rest = tuple((key, value) for key, value in fields if key not in (NODE_ID, IDENTIFIER, METADATA))
        notes.append(Note(node, identifier.decode(), metadata.decode(), rest))
    return notes


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a serialised message: numbers and byte strings."""
    position = 0
    while position < len(content):
        tag, position = _varint(content, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(content, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, position = _varint(content, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if position + length > len(content):
            raise ValueError("a field that ends behind the end")
        yield tag >> 3, content[position : position + length]
        position += length


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            raise ValueError("a number that ends behind the end")
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number of more than 64 bits")
