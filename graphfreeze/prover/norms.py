"""The norms that a training step computes with: frozen elements must have no part in them.

A norm sums up squares of what ends, element by element, in writes of a targeted variable and of its slots: a gradient,
in which no variable's value has a part, or something that is computed with a slot. It counts when it
reaches a write of the variable or of a slot, perhaps by way of variables that are neither, as the sums of squares are
of which Adafactor makes its slot again. The rows of a sparse gradient count likewise, whether their squares come to
their places in a tensor of the variable's shape before they are summed up, or are summed up as the rows that they are:
then frozen elements of these rows have no part.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from graphfreeze.prover.graph_view import Tensor
from graphfreeze.prover.handles import Context
from graphfreeze.prover.origins import Ends, Origin, Origins
from graphfreeze.prover.reach import Reach
from graphfreeze.prover.squares import Squared, squares
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of

__all__ = ["Norm", "Norms", "find_norms"]


class Norm(NamedTuple):
    """What a node sums up.

    Attributes:
        target: The variable of whose elements it is made.
        rows: The indices of the variable's rows that it sums up; None where it is all of them.
    """

    target: Target
    rows: Tensor | None


def find_norms(context: Context, targets: Mapping[int, Target], captured: Iterable[str]) -> dict[str, Norm]:
    """The nodes whose first input has to be zero at frozen elements, by name, each with what it sums up.

    Args:
        context: The body.
        targets: The targeted variables and their slots by object node.
        captured: The tensors of the body that custom gradients capture.
    """
    if not context.sources or not any(write_of(node) is not None for node in context.view.nodes.values()):
        return {}
    owners = {node_id: target for node_id, target in targets.items() if target.slot_of is None}
    slots: dict[int, set[int]] = {owner: set() for owner in owners}
    for node_id, target in targets.items():
        if target.slot_of is not None:
            slots[target.slot_of.node_id].add(node_id)
    norms = Norms(context, owners, captured)
    found = {}
    for name in norms.nodes:
        holders = [
            Norm(target, rows)
            for owner, target in owners.items()
            for rows in norms.summed(name)
            if norms.belongs(name, rows, target, slots[owner])
        ]
        # What two variables have a part in belongs to neither: each has elements of its own that are frozen.
        if len(holders) == 1:
            found[name] = holders[0]
    return found


class Norms:
    """The norms of one body, and which of them belong to a variable, depending on what its slots are.

    Args:
        context: The body.
        targets: The targeted variables by object node, without slots.
        captured: The tensors of the body that custom gradients capture.
    """

    def __init__(self, context: Context, targets: Mapping[int, Target], captured: Iterable[str]) -> None:
        self._context = context
        self._targets = targets
        self._reach = Reach(context)
        by_norm: dict[str, list[Squared]] = {}
        for squared in squares(context):
            by_norm.setdefault(squared.norm, []).append(squared)
        # Of targets with one shape, one stands for all.
        likes = {(target.shape, target.dtype): target for target in targets.values()}.values()
        self._squared: dict[str, dict[Tensor | None, list[Squared]]] = {}
        self._numbers: dict[tuple[Tensor, Tensor | None, int | None], int] = {}
        marks: dict[Tensor, dict[Origin, None]] = {}
        for name, found in by_norm.items():
            fitting = [(squared, like) for squared in found for like in likes if self._fits(squared, like)]
            for squared in found if fitting else ():
                self._squared.setdefault(name, {}).setdefault(squared.summed, []).append(squared)
            for squared, target in fitting:
                height = _height(squared, target)
                # What is squared goes by a number that no object node has.
                number = self._numbers.setdefault((squared.tensor, squared.rows, height), -1 - len(self._numbers))
                marks.setdefault(squared.tensor, {})[Origin(number, squared.rows, height=height)] = None
        self._ends: dict[int, Ends] = Origins(context, captured, {}, marks).ends() if marks else {}

    @property
    def nodes(self) -> list[str]:
        """The nodes that may belong to a variable."""
        return sorted(self._squared)

    def summed(self, node: str) -> list[Tensor | None]:
        """What a node may sum up: rows at these indices; None stands for a whole."""
        return list(self._squared.get(node, ()))

    def belongs(self, node: str, rows: Tensor | None, target: Target, slots: Container[int]) -> bool:
        """Whether a node is a norm of what updates a variable.

        Args:
            node: The node that sums up.
            rows: The indices of the rows that it sums up; None where it is a whole.
            target: The variable.
            slots: What its slots are.
        """
        found = self._squared.get(node, {})
        meant = found.get(rows, [])
        if not meant or not all(self._updates(squared, target, slots) for squared in meant):
            return False
        # What is squared for the node in another meaning only is something else than such rows, or such a whole.
        tensors = {squared.tensor for squared in meant}
        if any(squared.tensor not in tensors for other in found.values() for squared in other):
            return False
        return self._reach.reaches(node, target.node_id, slots, self._targets)

    def _updates(self, squared: Squared, target: Target, slots: Container[int]) -> bool:
        if not self._fits(squared, target):
            return False
        ends = self._ends.get(self._numbers[squared.tensor, squared.rows, _height(squared, target)])
        variables = [end for end in ends or () if isinstance(end, int)]
        if not variables or not all(variable == target.node_id or variable in slots for variable in variables):
            return False

        def is_slot(variable: int | None) -> bool:
            return variable is not None and variable in slots

        values = self._reach.values_behind(squared.tensor)
        if values:
            return any(map(is_slot, values))
        # A loss is given out. The rows that it takes of a variable are no gradient.
        values = self._reach.values_behind(squared.tensor, moved=True)
        return not values or any(map(is_slot, values)) or not self._reach.gives_out(squared.norm)

    def _fits(self, squared: Squared, target: Target) -> bool:
        """Whether a variable has the shape and dtype of what is summed up; of rows there may be any number."""
        node = self._context.view.nodes[squared.norm]
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
