"""The attributes of operations, apart from the GraphDef that they came in."""

from __future__ import annotations

from typing import Any

from tensorflow.core.framework import attr_value_pb2

__all__ = ["SHAPES", "SharedAttributes"]

SHAPES = "_output_shapes"
"""Where a GraphDef says the shapes of a node's outputs: no attribute of the operation."""


class SharedAttributes:
    """Makes `AttrValue`s of their own, equal ones once: what is taken out of a GraphDef keeps all of it in memory."""

    def __init__(self) -> None:
        self._known: dict[bytes, Any] = {}

    def of(self, node: Any) -> dict[str, Any]:
        """The attributes of a NodeDef by name, not to be changed in place."""
        return {name: self._shared(value) for name, value in node.attr.items() if name != SHAPES}

    def _shared(self, value: Any) -> Any:
        key = value.SerializeToString()
        if key not in self._known:
            self._known[key] = attr_value_pb2.AttrValue.FromString(key)
        return self._known[key]
