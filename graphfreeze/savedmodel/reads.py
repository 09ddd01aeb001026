"""Who takes the value that a read yields."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.handle_flow import READS

if TYPE_CHECKING:
    from graphfreeze.savedmodel.model import SavedModel

__all__ = ["captured_tensors", "is_used"]


def captured_tensors(model: SavedModel) -> dict[str, dict[str, list[int]]]:
    """Tensors inside functions that custom gradients capture.

    Returns:
        Concrete function -> name of the tensor in its graph (`node:0`) -> the object nodes that name it.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for i, node in enumerate(model.object_graph.nodes):
        if node.WhichOneof("kind") == "captured_tensor":
            captured: Any = node.captured_tensor
            found.setdefault(captured.concrete_function, {}).setdefault(captured.name, []).append(i)
    return found


def is_used(body: Body, node: int, captured: Container[str]) -> bool:
    """Whether anything takes the value of the read at that position: a node, the caller, or a custom gradient."""
    tensor = body.output(node, READS.get(body.nodes[node].op, "output"), 0)
    return tensor in body.consumers or tensor in body.returned or f"{body.nodes[node].name}:0" in captured
