"""How many iterations a While makes that ends at a size: at the last time step, at the last example.

Its condition must compare counters with numbers that follow the sizes. What a comparison gives at the samples alone
would not do: with `i < length and i < 100` it is 100 at all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tensorflow.python.framework import tensor_util

from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.sizes import Sizes
from graphfreeze.lowering.tensor import Dim
from graphfreeze.training.graph import Edge, Graph

__all__ = ["trips_by_sizes"]

_COMPARISONS = {"Less": (0, 1, 0), "LessEqual": (0, 1, -1), "Greater": (1, 0, 0), "GreaterEqual": (1, 0, -1)}
"""What is compared as `one - other + number < 0`: which input is one, which the other, and the number."""


@dataclass(frozen=True, slots=True)
class _Affine:
    """A number of the condition: `step * iteration + start`."""

    step: int
    start: Dim


def trips_by_sizes(cond: Graph, counted: Mapping[int, tuple[int, Dim | None]], sizes: Sizes) -> Dim | None:
    """The number of iterations at every sample, at least one; None where it is no such number.

    Args:
        cond: The condition.
        counted: By the index of the condition's inputs, how much each grows in an iteration, and where it starts.
        sizes: The sizes.
    """
    known = {id(cond.inputs[index]): _Affine(step, start) for index, (step, start) in counted.items() if start}
    ends = _ends(cond.outputs[0], known, len(next(iter(sizes.samples.values()))))
    if ends is None:
        return None
    for trips in ends:
        # The first comparison that fails ends the loop.
        if sizes.reaches(trips, 1) and all(sizes.reaches(other, trips) for other in ends):
            return trips
    return None


def _ends(edge: Edge, known: Mapping[int, _Affine], samples: int) -> list[Dim] | None:
    """After how many iterations each of the condition's comparisons fails; None where it is more than comparisons."""
    operation = edge.producer
    if operation is None:
        return None
    if operation.type == "Identity":
        return _ends(operation.inputs[0], known, samples)
    if operation.type == "LogicalAnd":
        parts = [_ends(given, known, samples) for given in operation.inputs]
        found = [part for part in parts if part is not None]
        return [end for part in found for end in part] if len(found) == len(parts) else None
    if operation.type not in _COMPARISONS:
        return None
    first, second, number = _COMPARISONS[operation.type]
    one, other = (_affine(operation.inputs[index], known, samples) for index in (first, second))
    if one is None or other is None or one.step <= other.step:
        return None
    step, start = one.step - other.step, plus(plus(one.start, other.start, -1), number)
    return [tuple(max(0, -(number // step)) for number in start)]


def _affine(edge: Edge, known: Mapping[int, _Affine], samples: int) -> _Affine | None:
    operation = edge.producer
    if operation is None:
        return known.get(id(edge))
    match operation.type:
        case "Const":
            array = tensor_util.MakeNdarray(operation.attributes["value"].tensor)
            whole = array.shape == () and array.dtype.kind == "i"
            return _Affine(0, (int(array),) * samples) if whole else None
        case "Identity":
            return _affine(operation.inputs[0], known, samples)
        case "Add" | "AddV2" | "Sub":
            one, other = (_affine(given, known, samples) for given in operation.inputs)
            if one is None or other is None:
                return None
            factor = -1 if operation.type == "Sub" else 1
            return _Affine(one.step + factor * other.step, plus(one.start, other.start, factor))
    return None
