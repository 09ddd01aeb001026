"""Damage to protos and bytes: what a broken disk, another program or somebody with bad intentions may do to a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

__all__ = ["Place", "damage", "damage_bytes", "places"]

_INTEGERS = (0, 1, -1, 7, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
_TEXTS = ("", "^", ":", "a:b:c:d", "^a", "/", "../..", "\x00", "x" * 1000)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
}


@dataclass(frozen=True)
class Place:
    """Something in a proto that damage can hit: a field, or one entry of a repeated field or a map."""

    message: Any
    field: Any
    key: Any = None


def places(message: Any) -> Iterator[Place]:
    """Every place of a proto that is set, parents before children, in a fixed order."""
    for field, value in message.ListFields():
        yield Place(message, field)
        if not field.is_repeated:
            if field.message_type is not None:
                yield from places(value)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key in sorted(value):
                yield Place(message, field, key)
                if field.message_type.fields_by_name["value"].message_type is not None:
                    yield from places(value[key])
        else:
            for i, entry in enumerate(value):
                yield Place(message, field, i)
                if field.message_type is not None:
                    yield from places(entry)


def damage(place: Place, kind: int, other: int, texts: Sequence[str]) -> None:
    """Damage one place: remove it, or give it another value.

    Args:
        place: The place.
        kind: Which of the ways; any non-negative integer.
        other: Which other value; any non-negative integer.
        texts: Texts of the same model, of which one takes the place of another.
    """
    container = getattr(place.message, place.field.name)
    is_map = isinstance(place.key, str) or hasattr(container, "keys")
    if place.key is None:
        if place.field.is_repeated or place.field.message_type is not None or kind % 3 == 0:
            place.message.ClearField(place.field.name)
        else:
            setattr(place.message, place.field.name, _other_value(place.field, container, other, texts))
    elif kind % 3 == 0:
        del container[place.key]
    elif is_map:
        value_type = place.field.message_type.fields_by_name["value"]
        keys = sorted(container)
        source = keys[other % len(keys)]
        if value_type.message_type is not None:
            container[place.key].CopyFrom(container[source])
        else:
            container[place.key] = _other_value(value_type, container[place.key], other, texts)
    elif place.field.message_type is not None:
        if kind % 3 == 1:
            container.add().CopyFrom(container[place.key])
        else:
            container[place.key].CopyFrom(container[other % len(container)])
    else:
        container[place.key] = _other_value(place.field, container[place.key], other, texts)


def _other_value(field: Any, value: Any, other: int, texts: Sequence[str]) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        lowest, highest = _RANGES.get(field.cpp_type, (-(2**31), 2**31 - 1))
        candidates = (*_INTEGERS, *range(2, 30))
        return min(max(candidates[other % len(candidates)], lowest), highest)
    if isinstance(value, float):
        return -value
    if isinstance(value, bytes):
        return value[: len(value) // 2] if other % 2 else value + b"\xff"
    choices = (*texts, *_TEXTS)
    return choices[other % len(choices)]


def damage_bytes(content: bytes, kind: int, position: int, value: int) -> bytes:
    """Truncate bytes, flip one, cut a part out, or repeat one."""
    start = position % (len(content) + 1)
    if kind % 4 == 0:
        return content[:start]
    if kind % 4 == 1:
        return content[:start] + bytes([value % 256]) + content[start + 1 :]
    if kind % 4 == 2:
        return content[:start] + content[start + 1 + value % 64 :]
    return content[:start] + content[start : start + value % 64] + content[start:]
