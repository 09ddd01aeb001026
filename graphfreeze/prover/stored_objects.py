"""Where the checkpoint of a rewritten model has its masks and frozen values, and that the rest is the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graphfreeze.prover.bundle import OBJECT_GRAPH, Bundle
from graphfreeze.prover.constants import numpy_size
from graphfreeze.prover.failure import refuse
from graphfreeze.prover.messages import differing_fields

__all__ = ["SavedObjects", "copied", "locate"]


def locate(stored: dict[int, Any], old: Bundle, new: Bundle, keys: dict[int, str]) -> dict[int, tuple[str, Path, int]]:
    """By object node: the key, and where the bytes lie. The rest of the checkpoint has to be the original's.

    Args:
        stored: The variables that hold masks and values, by object node.
        old: The original's checkpoint.
        new: The rewritten model's.
        keys: The keys of the variables, by object node.

    Raises:
        VerificationError: The checkpoint holds something else.
    """
    expected = {key: entry for key, entry in old.entries.items() if key != OBJECT_GRAPH}
    further = {key.encode() for key in keys.values()} | {OBJECT_GRAPH}
    if (
        set(new.entries) - further != set(expected)
        or len(further) != len(stored) + 1
        or not further.isdisjoint(expected)
    ):
        refuse("expected the original's checkpoint with masks and values, found other keys")
    for key, entry in expected.items():
        if new.entries[key] != entry:
            refuse(f"expected the index entry of {key.decode(errors='replace')!r} to stay as it is, found another")
    if differing_fields(old.header, new.header, skip=("num_shards",)):
        refuse("expected the checkpoint's header to keep its byte order and version, found others")
    places = {}
    for node, (_, proto) in stored.items():
        entry = new.entries[keys[node].encode()]
        size = numpy_size(proto.dtype, [dim.size for dim in proto.shape.dim])
        if (entry.dtype, entry.shape) != (proto.dtype, proto.shape) or entry.size != size or len(entry.slices):
            refuse(f"expected the tensor {keys[node]!r} to have the shape and dtype of its variable, found others")
        path = new.shard(entry.shard_id)
        if not path.is_file() or entry.offset < 0 or path.stat().st_size < entry.offset + entry.size:
            refuse(f"expected the tensor {keys[node]!r} in {path.name}, found a file that ends before")
        places[node] = (keys[node], path, int(entry.offset))
    return places


class SavedObjects:
    """The object graphs that are saved with the values: in the checkpoint, and in what a session saves.

    Args:
        old: The one in the original's checkpoint.
        new: The one in the rewritten model's.
        stored: The variables that hold masks and values, by object node.

    Attributes:
        keys: The key of each mask and value, by object node.

    Raises:
        VerificationError: The new one is not the old one with masks and values.
    """

    def __init__(self, old: Any, new: Any, stored: dict[int, Any]) -> None:
        self.old, self.stored = old, stored
        _compare_objects(old, new, stored)
        self.keys = _keys(new, stored)

    def known(self, content: bytes) -> bool:
        """Whether these are the objects and keys of the original's checkpoint; variables may be called otherwise."""
        found = self._parsed(content)
        return found is not None and _all_keys(found) == _all_keys(self.old)

    def compare(self, before: bytes, after: bytes) -> None:
        """Prove that the second is the first, with masks and values under their keys."""
        old, new = self._parsed(before), self._parsed(after)
        if new is None or not new.nodes:
            refuse("expected a session to save an object graph, found something else")
        _compare_objects(old, new, self.stored)
        if _keys(new, self.stored) != self.keys:
            refuse("expected a session to save masks and values under their keys, found others")

    def _parsed(self, content: bytes) -> Any | None:
        try:
            return type(self.old).FromString(content)
        except Exception:
            # protobuf's DecodeError is a plain Exception in some implementations.
            return None


def _all_keys(objects: Any) -> list[list[str]]:
    return [[attribute.checkpoint_key for attribute in node.attributes] for node in objects.nodes]


def _compare_objects(old: Any, new: Any, stored: dict[int, Any]) -> None:
    kept = copied(new)
    del kept.nodes[len(old.nodes) :]
    if not len(kept.nodes[0].children) or len(new.nodes) != len(old.nodes) + 1 + len(stored):
        refuse("expected the checkpoint's object graph with masks and values, found another")
    del kept.nodes[0].children[-1]
    if kept != old:
        refuse("expected the checkpoint's object graph to stay as it is, found another")


def _keys(objects: Any, stored: dict[int, Any]) -> dict[int, str]:
    children = {child.local_name: child.node_id for child in objects.nodes[0].children}
    keys = {}
    for node, ((child, local), _) in stored.items():
        holder = objects.nodes[children[child]] if child in children else objects.nodes[0]
        inner = {entry.local_name: entry.node_id for entry in holder.children}
        attributes = list(objects.nodes[inner[local]].attributes) if local in inner else []
        if [attribute.name for attribute in attributes] != ["VARIABLE_VALUE"]:
            refuse(f"expected a value of {child}/{local} in the checkpoint, found none")
        keys[node] = str(attributes[0].checkpoint_key)
    return keys


def copied(message: Any) -> Any:
    """A message of its own."""
    found = type(message)()
    found.CopyFrom(message)
    return found
