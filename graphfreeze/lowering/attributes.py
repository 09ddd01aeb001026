"""TensorFlow's AttrValue protos as Python values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ["to_python"]


def to_python(value: Any) -> Any:
    """int, float, bool, str (from bytes), `tf.DType`, a shape tuple, a TensorProto, a function's name, or a list."""
    kind = value.WhichOneof("value")
    match kind:
        case "list":
            for field in ("s", "i", "f", "b", "type", "shape", "func"):
                items = getattr(value.list, field)
                if len(items):
                    return [_convert(field, item) for item in items]
            return []
        case None:
            return None
        case _:
            return _convert(kind, getattr(value, kind))


def _convert(kind: str, item: Any) -> Any:
    match kind:
        case "s":
            return item.decode("utf-8", "surrogateescape")
        case "type":
            return tf.as_dtype(item)
        case "shape":
            return None if item.unknown_rank else tuple(d.size if d.size >= 0 else None for d in item.dim)
        case "func":
            return item.name
        case _:
            return item
