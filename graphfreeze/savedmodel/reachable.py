"""What can be reached in a directed graph of names or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

__all__ = ["reachable"]

_Node = TypeVar("_Node")


def reachable(start: Iterable[_Node], successors: Mapping[_Node, Iterable[_Node]]) -> set[_Node]:
    """The nodes to start with, and all that follow from them."""
    reached: set[_Node] = set()
    pending = list(start)
    while pending:
        node = pending.pop()
        if node not in reached:
            reached.add(node)
            pending.extend(successors.get(node, ()))
    return reached
