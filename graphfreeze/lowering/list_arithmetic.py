"""AddN and ZerosLike on TensorLists: the gradient of a list is a list, and gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from graphfreeze.lowering import lists
from graphfreeze.lowering.tensor import Tensor
from graphfreeze.training.graph import Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["lower_list_arithmetic"]


def lower_list_arithmetic(lowering: Lowering, operation: Operation, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """The operation's output where its inputs are lists; None for other operations, or without lists."""
    if operation.type not in ("AddN", "ZerosLike"):
        return None
    found = [tensor.tensor_list for tensor in inputs]
    given = [one for one in found if one is not None]
    if not given or len(given) != len(found):
        return None
    made = lists.add_lists(lowering, given) if operation.type == "AddN" else lists.unset_like(given[0])
    return [Tensor(np.dtype(object), inputs[0].shapes, tensor_list=made)]
