"""The bytes of a SavedModel, node by node: protobuf's own serialisation holds a large graph three times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from tensorflow.core.protobuf import saved_model_pb2

from graphfreeze.passes.size_budget import SizeBudget

__all__ = ["serialise"]

# Where masks and frozen values are: in the nodes of functions.
_LARGE = ("meta_graphs", "graph_def", "library", "function", "node_def")
_LENGTH_DELIMITED = 2


def serialise(proto: saved_model_pb2.SavedModel) -> Iterator[bytes]:
    """The bytes of a SavedModel, the same ones in every process and as `SerializeToString(deterministic=True)` gives.

    Raises:
        UnsupportedError: They are more than protobuf can hold.
    """
    parts = _parts(proto, _LARGE)
    SizeBudget(0).take(parts.size)
    return parts.pieces()


class _Leaf:
    """A message that is serialised at once. To ask protobuf for its size is to serialise it, too."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self.size: int = message.ByteSize()

    def pieces(self) -> Iterator[bytes]:
        yield self._message.SerializeToString(deterministic=True)


@dataclass
class _Parts:
    """A message with a large field: what comes before that, the messages in it, and what comes after."""

    before: bytes
    key: bytes
    items: Sequence[_Leaf | _Parts]
    after: bytes

    def __post_init__(self) -> None:
        self.size: int = len(self.before) + len(self.after)
        self.size += sum(len(self.key) + len(_varint(item.size)) + item.size for item in self.items)

    def pieces(self) -> Iterator[bytes]:
        yield self.before
        for item in self.items:
            yield self.key + _varint(item.size)
            yield from item.pieces()
        yield self.after


def _parts(message: Any, path: Sequence[str]) -> _Leaf | _Parts:
    """The message's parts, where the path names its large field, then that one's, and so on."""
    if not path or len(UnknownFieldSet(message)):
        return _Leaf(message)
    field = message.DESCRIPTOR.fields_by_name[path[0]]
    before, after = type(message)(), type(message)()
    items: Sequence[Any] = ()
    for other, value in message.ListFields():
        if other.number == field.number:
            items = [value] if isinstance(value, Message) else value
        else:
            _copy(before if other.number < field.number else after, other.name, value)
    return _Parts(
        before.SerializeToString(deterministic=True),
        _varint(field.number << 3 | _LENGTH_DELIMITED),
        [_parts(item, path[1:]) for item in items],
        after.SerializeToString(deterministic=True),
    )


def _copy(target: Any, name: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(target, name).CopyFrom(value)
    elif hasattr(value, "MergeFrom"):
        getattr(target, name).MergeFrom(value)
    else:
        setattr(target, name, value)


def _varint(number: int) -> bytes:
    """A number in groups of seven bits, lowest first: https://protobuf.dev/programming-guides/encoding/#varints."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
