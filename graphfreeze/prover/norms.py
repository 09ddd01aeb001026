"""The norms that a training step computes with: frozen elements must have no part in them.

A norm sums up squares of what ends, element by element, in writes of a targeted variable and of its slots, or begins a
direction of it: a gradient, in which no variable's value has a part, or something that is computed with a slot. It
counts when it reaches a write of the variable or of a slot, perhaps by way of variables that are neither, as the sums
of squares are of which Adafactor makes its slot again. The rows of a sparse gradient count likewise, whether their
squares come to their places in a tensor of the variable's shape before they are summed up, or are summed up as the rows
that they are: then frozen elements of these rows have no part.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from graphfreeze.prover.behind import Behind
from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.ends import DirectionEnd, Ends, NormEnd
from graphfreeze.prover.graph_view import Tensor
from graphfreeze.prover.handles import Context
from graphfreeze.prover.origin import Origin
from graphfreeze.prover.reach import Reach
from graphfreeze.prover.squares import Squared, squares
from graphfreeze.prover.targets import Target

__all__ = ["Norms", "SquaresOfTargets"]

Number = tuple[Context, Tensor, Tensor | None, int | None]


class SquaresOfTargets:
    """What nodes sum up squares of, in all bodies of a model, where it fits targeted variables.

    Args:
        bodies: The bodies.
        targets: The targeted variables by object node.
        is_pure: Whether a node of a body belongs to the inside of a direction: then it is no norm.

    Attributes:
        marked: The tensors that are squared, to be followed to their ends: each counts as a variable, by a number.
    """

    def __init__(self, bodies: Bodies, targets: Iterable[Target], is_pure: Callable[[Context, str], bool]) -> None:
        # Of targets with one shape, one stands for all.
        likes = {(target.shape, target.dtype): target for target in targets}.values()
        self._found: dict[tuple[Context, str], dict[Tensor | None, list[Squared]]] = {}
        self._numbers: dict[Number, int] = {}
        self._meant: dict[NormEnd, list[Squared]] = {}
        self.marked: dict[tuple[Context, Tensor], list[Origin]] = {}
        for context in bodies.contexts.values():
            by_norm: dict[str, list[Squared]] = {}
            for squared in squares(bodies.frame(context)):
                if not is_pure(context, squared.norm):
                    by_norm.setdefault(squared.norm, []).append(squared)
            for name, found in by_norm.items():
                fitting = [(squared, like) for squared in found for like in likes if fits(context, squared, like)]
                for squared in found if fitting else ():
                    of_norm = self._found.setdefault((context, name), {})
                    of_norm.setdefault(squared.summed, []).append(squared)
                for squared, target in fitting:
                    self._mark(context, squared, target)

    @property
    def ends(self) -> list[NormEnd]:
        """The nodes that may belong to a variable, once for each thing that they may sum up."""
        found = [NormEnd(context, name, rows) for (context, name), of in self._found.items() for rows in of]
        return sorted(found, key=lambda end: end.node)

    def meant(self, norm: NormEnd) -> list[Squared]:
        """What is squared for a node, where it sums up what is said; nothing where it may only be something else."""
        if norm not in self._meant:
            found = self._found.get((norm.context, norm.node), {})
            meant = found.get(norm.rows, [])
            tensors = {squared.tensor for squared in meant}
            # What is squared for the node in another meaning only is something else than such rows, or such a whole.
            other = any(squared.tensor not in tensors for one in found.values() for squared in one)
            self._meant[norm] = [] if other else meant
        return self._meant[norm]

    def number(self, context: Context, squared: Squared, target: Target) -> int:
        """The number that a tensor counts by where it is followed to the ends of a target's elements."""
        return self._numbers[context, squared.tensor, squared.rows, _height(squared, target)]

    def _mark(self, context: Context, squared: Squared, target: Target) -> None:
        height = _height(squared, target)
        # What is squared goes by a number that no object node has.
        number = self._numbers.setdefault((context, squared.tensor, squared.rows, height), -1 - len(self._numbers))
        origin = Origin(number, squared.rows, height=height)
        origins = self.marked.setdefault((context, squared.tensor), [])
        if origin not in origins:
            origins.append(origin)


class Norms:
    """Which nodes are norms of a variable, depending on what its slots are.

    Args:
        found: What nodes sum up squares of.
        ends: Where these end, by their numbers.
        bodies: The bodies.
        behind: What is behind the tensors of these.
        targets: The targeted variables by object node.
        begins: Whether a direction belongs to a variable with these slots.
    """

    def __init__(
        self,
        found: SquaresOfTargets,
        ends: Mapping[int, Ends],
        bodies: Bodies,
        behind: Behind,
        targets: Mapping[int, Target],
        begins: Callable[[DirectionEnd, Target, Container[int]], bool],
    ) -> None:
        self._found = found
        self._ends = ends
        self._behind = behind
        self._reach = Reach(bodies)
        self._targets = targets
        self._begins = begins

    def belongs(self, norm: NormEnd, target: Target, slots: Container[int]) -> bool:
        """Whether a node is a norm of what updates a variable.

        Args:
            norm: The node that sums up.
            target: The variable.
            slots: What its slots are.
        """
        meant = self._found.meant(norm)
        if not meant or not all(self._updates(norm.context, squared, target, slots) for squared in meant):
            return False
        return self._reach.reaches(norm.context, norm.node, target.node_id, slots, self._targets)

    def _updates(self, context: Context, squared: Squared, target: Target, slots: Container[int]) -> bool:
        if not fits(context, squared, target):
            return False
        ends = self._ends.get(self._found.number(context, squared, target))
        updates = [end for end in ends or () if not isinstance(end, NormEnd)]
        if ends is None or not all(self._is_update(end, target, slots) for end in updates):
            return False

        def is_slot(variable: int | None) -> bool:
            return variable is not None and variable in slots

        values = self._behind.values(context, squared.tensor)
        # What is read of slots for a norm alone is theirs all the same.
        if not updates and not (values and all(map(is_slot, values))):
            return False
        if values:
            return any(map(is_slot, values))
        # A loss is given out. The rows that it takes of a variable are no gradient.
        values = self._behind.values(context, squared.tensor, moved=True)
        return not values or any(map(is_slot, values)) or not self._reach.gives_out(context, squared.norm)

    def _is_update(self, end: int | DirectionEnd, target: Target, slots: Container[int]) -> bool:
        if isinstance(end, DirectionEnd):
            return self._begins(end, target, slots)
        return end == target.node_id or end in slots


def fits(context: Context, squared: Squared, target: Target) -> bool:
    """Whether a variable has the shape and dtype of what is summed up; of rows there may be any number."""
    node = context.view.nodes[squared.norm]
    if (int(node.attr["T"].type) if "T" in node.attr else 0) != target.dtype:
        return False
    if squared.summed is None:
        return squared.shape == target.shape
    same_rank = len(squared.shape) == len(target.shape) > 0
    return same_rank and squared.shape[1:] == target.shape[1:]


def _height(squared: Squared, target: Target) -> int | None:
    """How many rows the variable has, where rows are squared.

    What gathers rows of a whole and sums them up again counts as something else.
    """
    return None if squared.rows is None else target.shape[0]
