"""Compare protobuf messages whose large parts are compared elsewhere."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.message import Message
from tensorflow.core.framework import types_pb2

__all__ = ["differing_fields", "dtype_name"]


def _bytes_of(message: Message, field: str) -> bytes:
    """One field alone, serialised: exact for NaN and -0.0, which `==` on messages is not."""
    alone = type(message)()
    value = getattr(message, field)
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    if isinstance(value, Message):
        # An empty message that is present differs from an absent one.
        if message.HasField(field):
            getattr(alone, field).SetInParent()
            getattr(alone, field).MergeFrom(value)
    elif hasattr(value, "MergeFrom"):
        getattr(alone, field).MergeFrom(value)
    elif not descriptor.has_presence or message.HasField(field):
        setattr(alone, field, value)
    return bytes(alone.SerializeToString(deterministic=True))


def differing_fields(left: Message, right: Message, skip: Collection[str] = ()) -> list[str]:
    """The names of the fields in which two messages of one type differ, without those in `skip`."""
    names = [field.name for field in left.DESCRIPTOR.fields if field.name not in skip]
    return [name for name in names if _bytes_of(left, name) != _bytes_of(right, name)]


def dtype_name(number: int) -> str:
    """The name of a DataType. A damaged model may hold any number."""
    known = number in types_pb2.DataType.values()
    return str(types_pb2.DataType.Name(number)) if known else f"the number {number}, which is no DataType"
