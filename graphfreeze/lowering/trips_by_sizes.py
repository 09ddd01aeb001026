"""How many iterations a While makes that ends at a size: at the last time step, at the last example.

Its condition must compare counters with numbers that follow the sizes. What a comparison gives at the samples alone
would not do: with `i < length and i < 100` it is 100 at all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.tensor import Dim, Tensor
from graphfreeze.training.graph import Edge, Graph, Operation

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["trips_by_sizes"]

_COMPARISONS = {"Less": (0, 1, 0), "LessEqual": (0, 1, -1), "Greater": (1, 0, 0), "GreaterEqual": (1, 0, -1)}
"""What is compared as `one - other + number < 0`: which input is one, which the other, and the number."""


def trips_by_sizes(
    lowering: Lowering, cond: Graph, inputs: Sequence[Tensor], unchanged: set[int], steps: dict[int, int]
) -> Dim | None:
    """The number of iterations at every sample, at least one; None where it is no such number.

    Args:
        lowering: The lowering.
        cond: The condition.
        inputs: The loop's variables before it.
        unchanged: Those that stay as they are.
        steps: How much those grow in an iteration that are counters.
    """
    ends = _Condition(lowering, cond, inputs, unchanged, steps).ends(cond.outputs[0])
    reaches = lowering.sizes.reaches
    # The first comparison that fails ends the loop.
    first = [end for end in ends or () if reaches(end, 1) and all(reaches(other, end) for other in ends or ())]
    return first[0] if first else None


@dataclass(frozen=True, slots=True)
class _Affine:
    """A number of the condition: `step * iteration + start`."""

    step: int
    start: Dim


class _Condition:
    """The condition of a loop as comparisons of affine functions of the iteration."""

    def __init__(
        self, lowering: Lowering, cond: Graph, inputs: Sequence[Tensor], unchanged: set[int], steps: dict[int, int]
    ) -> None:
        self.lowering = lowering
        self.cond = cond
        self.inputs = inputs
        self.counters: dict[int, _Affine] = {}
        for index, step in steps.items():
            start = inputs[index].number
            assert start is not None
            self.counters[id(cond.inputs[index])] = _Affine(step, start)
        self.changing = {id(edge) for index, edge in enumerate(cond.inputs) if index not in unchanged}
        for operation in cond.operations:
            if any(id(edge) in self.changing for edge in operation.inputs):
                self.changing.update(id(edge) for edge in operation.outputs)

    def ends(self, edge: Edge) -> list[Dim] | None:
        """After how many iterations each comparison fails; None where it is more than comparisons."""
        operation = edge.producer
        if operation is None:
            return None
        if operation.type == "Identity":
            return self.ends(operation.inputs[0])
        if operation.type == "LogicalAnd":
            parts = [self.ends(given) for given in operation.inputs]
            found = [part for part in parts if part is not None]
            return [end for part in found for end in part] if len(found) == len(parts) else None
        if operation.type not in _COMPARISONS:
            return None
        first, second, number = _COMPARISONS[operation.type]
        one, other = (self._affine(operation.inputs[index]) for index in (first, second))
        if one is None or other is None or one.step <= other.step:
            return None
        step, start = one.step - other.step, plus(plus(one.start, other.start, -1), number)
        return [tuple(max(0, -(number // step)) for number in start)]

    def _affine(self, edge: Edge) -> _Affine | None:
        if id(edge) not in self.changing:
            number = self._unchanged(edge).number
            return None if number is None else _Affine(0, number)
        operation = edge.producer
        if operation is None:
            return self.counters.get(id(edge))
        if operation.type == "Identity":
            return self._affine(operation.inputs[0])
        if operation.type not in ("Add", "AddV2", "Sub"):
            return None
        one, other = (self._affine(given) for given in operation.inputs)
        if one is None or other is None:
            return None
        factor = -1 if operation.type == "Sub" else 1
        return _Affine(one.step + factor * other.step, plus(one.start, other.start, factor))

    def _unchanged(self, edge: Edge) -> Tensor:
        """What is computed anew before each iteration, and always the same."""
        needed = {id(edge)}
        operations: list[Operation] = []
        for operation in reversed(self.cond.operations):
            if any(id(output) in needed for output in operation.outputs):
                needed.update(id(given) for given in operation.inputs)
                operations.append(operation)
        return self.lowering.run(Graph(self.cond.inputs, operations[::-1], [edge]), self.inputs)[0]
