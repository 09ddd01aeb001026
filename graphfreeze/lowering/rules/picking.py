"""Elements picked by a mask. How many these are, only run time knows."""

from __future__ import annotations

import numpy as np

from graphfreeze.lowering.picked import picked_size
from graphfreeze.lowering.rule import CannotLower, Node, special
from graphfreeze.lowering.tensor import Layout, Tensor


@special("Where")
def where(node: Node) -> list[Tensor]:
    """The places of the elements that are not zero, a row for each."""
    source, lowering = node.inputs[0], node.lowering
    if source.missing:
        return lowering.missing(node.operation, source.missing)
    evaluated = lowering.folding.evaluate(node.operation, node.inputs)
    if evaluated is not None:
        return evaluated
    if not source.rank:
        raise CannotLower("a number; arrays are covered")
    places = node.emit("Transpose", node.emit("NonZero", node.value(source)), perm=[1, 0])
    rows = picked_size(lowering, places, 0)
    return [Tensor(np.dtype(np.int64), tuple((row, source.rank) for row in rows), values={Layout.PLAIN: places})]
