"""What a body notes of the shapes of its tensors."""

from __future__ import annotations

from graphfreeze.savedmodel.body import Body
from graphfreeze.savedmodel.call_sites import CALLS, CONDITIONALS

__all__ = ["static_shape"]

# Operations whose outputs are one list, so that the position in it says which shape is meant.
_ONE_LIST = CALLS | CONDITIONALS | {"IdentityN"}


def static_shape(body: Body, tensor: str) -> tuple[int, ...] | None:
    """The static shape that is noted of a node's output or an argument; None where there is none.

    A size that is not known is -1.
    """
    if tensor in body.arguments:
        return body.argument_shapes.get(body.arguments.index(tensor))
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
