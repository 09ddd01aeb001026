"""A TensorList as the state of a loop, where its body needs all items at every iteration."""

from __future__ import annotations

import numpy as np

from graphfreeze.lowering import lists
from graphfreeze.lowering.numbers import static
from graphfreeze.lowering.rule import CannotLower, Node
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.lowering.tensor_list import ItemShape, TensorList

__all__ = ["CarriedList"]

_GROWS = (
    "a TensorList grows or shrinks in a loop whose number of iterations is known only at run time or follows the "
    "batch, or otherwise than item by item from its end; lists of a fixed length are covered, and those that a loop "
    "keeps for its gradient"
)


class CarriedList:
    """A list as a state: all its items along a first axis, or, where it has just one, that item."""

    def __init__(self, node: Node, initial: TensorList, shape: ItemShape | None) -> None:
        if initial.length is None:
            raise CannotLower(_GROWS)
        self.node = node
        self.initial = initial
        if initial.shape is None:
            initial.shape = shape
        self.has_one = static(initial.length) == 1
        self.before = self.tensor_of(initial)

    def tensor_of(self, current: TensorList) -> Tensor:
        """What the state holds when the list is this one."""
        lowering = self.node.lowering
        if current.length != self.initial.length:
            raise CannotLower(_GROWS)
        if self.has_one:
            return lists.get_item(lowering, current, lowering.constant(np.int32(0)))
        return lists.stack(lowering, current)

    def list_of(self, tensor: Tensor) -> TensorList:
        """The list when the state is this tensor."""
        first = self.initial
        if self.has_one:
            return TensorList(tensor.dtype, first.length, tensor.shapes, first.declared, item=tensor)
        shape = tuple(sizes[1:] for sizes in tensor.shapes)
        return TensorList(tensor.dtype, first.length, shape, first.declared, stack=tensor)
