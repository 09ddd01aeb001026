"""Where a training step computes norms of what it updates a targeted variable with, as clipping, LAMB and Adafactor do.

Frozen elements have no gradient in a step that is traced anew, so they have no part in such a norm: what is summed up
for it has to be zero there. A sum belongs to a variable when what it sums up is made, element by element, of squares of
tensors each of which

- ends, element by element, in updates of the variable and of its slots, or in their directions, apart from norms; or
  ends in norms alone, and is computed, element by element, from slots alone,
- does not begin, element by element, with what a variable holds, as weight decay does; or begins with a slot. Where the
  result is given out, as a loss is, it does not begin with rearranged elements of a variable either,

and when its result reaches such an update itself. The rows of a sparse gradient count likewise: at their indices, or
where their squares are first summed into a tensor like the variable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import tensorflow as tf

from graphfreeze.passes.directions import Direction
from graphfreeze.passes.influence import Influence
from graphfreeze.passes.places import Norm
from graphfreeze.passes.sums_of_squares import Square, SumOfSquares, find_sums, indices_of_rows
from graphfreeze.passes.value_ends import ValueEnds
from graphfreeze.passes.values_behind import ELSEWHERE
from graphfreeze.savedmodel.handle_flow import Context
from graphfreeze.selection.plan import FrozenVariable

__all__ = ["GradientNorms", "MaskedNorm"]


@dataclass(frozen=True, slots=True)
class MaskedNorm:
    """A norm in which frozen elements must have no part.

    Attributes:
        variable: The object node of the variable.
        rows: Where the norm is of some rows: an input of a node with their indices, and the dtype of these.
    """

    variable: int
    rows: tuple[str, int] | None = None


class GradientNorms:
    """The norms in the bodies of a model.

    Args:
        ends: Where values go, as far as the handles of targeted variables and slots are followed.
        targets: Object node -> targeted variable.

    Attributes:
        ends: Where values go.
    """

    def __init__(self, ends: ValueEnds, targets: Mapping[int, FrozenVariable]) -> None:
        self.ends = ends
        self._targets = targets
        self._influence = Influence(ends, targets)
        self._sums: dict[Context, dict[int, SumOfSquares]] = {}

    def of(self, context: Context, slots: Mapping[int, int]) -> dict[int, MaskedNorm]:
        """The norms in one body.

        Args:
            context: The body.
            slots: Object node of a slot -> that of its variable.

        Returns:
            Position of a node whose first input has to be zero at frozen elements -> of which.
        """
        found = {}
        for node, norm in self._sums_in(context).items():
            for rows, squares in norm.squares.items():
                variables = {end for square in squares for end in self._variables(square) or square.begins}
                owners = {slots.get(end, end) for end in variables}
                owner = owners.pop() if len(owners) == 1 else ELSEWHERE
                own = {slot for slot, variable in slots.items() if variable == owner}
                if owner in self._targets and self.belongs(Norm(context, node, rows), owner, own):
                    body = self.ends.model.body(context.function)
                    found[node] = MaskedNorm(owner, None if rows is None else indices_of_rows(body)[rows])
        return found

    def belongs(self, norm: Norm, target: int, slots: Collection[int]) -> bool:
        """Whether a norm has to leave out the frozen elements of a variable.

        Args:
            norm: The norm.
            target: Object node of the variable.
            slots: Object nodes of its slots.
        """
        found = self._sums_in(norm.context).get(norm.node)
        own = {target, *slots}
        variable = self._targets[target].variable
        if found is None or found.dtype != tf.as_dtype(variable.dtype).as_datatype_enum or not found.reaches & own:
            return False
        squares = found.squares.get(norm.rows, [])
        if {square.tensor for squares in found.squares.values() for square in squares} > {s.tensor for s in squares}:
            return False
        if self.ends.directions.computes(norm.context, norm.node):
            return False
        for square in squares:
            if not all(self._is_own(end, target, slots) for end in square.ends):
                return False
            # What is computed from slots alone is theirs, also where it is read again for what is updated.
            if not square.ends and not (square.begins and square.begins <= set(slots)):
                return False
            if not _is_gradient(square, slots, found.is_given_out):
                return False
            if not _fits(found.shape, square.height, variable.shape, norm.rows is not None):
                return False
        return bool(squares)

    def _variables(self, square: Square) -> set[int]:
        """The variables in whose updates a tensor ends."""
        directions = self.ends.directions
        return {n for e in square.ends for n in (directions.ends_of(e) if isinstance(e, Direction) else (e,))}

    def _is_own(self, end: int | Direction, target: int, slots: Collection[int]) -> bool:
        if isinstance(end, Direction):
            return self.ends.directions.belongs(end, target, slots)
        return end == target or end in slots

    def _sums_in(self, context: Context) -> Mapping[int, SumOfSquares]:
        if context not in self._sums:
            self._sums[context] = find_sums(self.ends, self._influence, context)
        return self._sums[context]


def _is_gradient(square: Square, slots: Collection[int], is_given_out: bool) -> bool:
    """Whether a tensor may be a gradient, or what an optimizer made of one, by the values that it is computed from."""
    if square.begins:
        return bool(square.begins.intersection(slots))
    return not square.holds or bool(square.holds.intersection(slots)) or not is_given_out


def _fits(found: tuple[int, ...] | None, height: int | None, shape: tuple[int, ...], of_rows: bool) -> bool:
    """Whether what is summed up has a variable's shape, or that of some of its rows."""
    if not found or len(found) != len(shape):
        return found == shape
    # A single row might be spread over others.
    if not of_rows and found[0] == -1 and height is not None and height > 1:
        found = (height, *found[1:])
    return found[1:] == shape[1:] and (of_rows or found[0] == shape[0])
