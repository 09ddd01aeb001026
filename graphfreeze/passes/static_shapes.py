"""What a body notes of the shapes of its tensors."""

from __future__ import annotations

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS

__all__ = ["static_shape"]

# Operations whose outputs are one list, so that the position in it says which shape is meant.
_ONE_LIST = CALLS | {"IdentityN"}


def static_shape(body: Body, tensor: str) -> tuple[int, ...] | None:
    """The static shape that a node notes of its output, with -1 for unknown sizes; None where there is none."""
    name, _, output = tensor.partition(":")
    position = body.positions.get(name)
    node = None if position is None else body.nodes[position]
    if node is None or "_output_shapes" not in node.attr:
        return None
    shapes = node.attr["_output_shapes"].list.shape
    index = int(output.rpartition(":")[2])
    if index >= len(shapes) or (len(shapes) > 1 and node.op not in _ONE_LIST) or shapes[index].unknown_rank:
        return None
    return tuple(int(dim.size) for dim in shapes[index].dim)
