"""The norms that a training step computes with: frozen elements must have no part in them.

A norm sums up squares of what ends, element by element, in writes of a targeted variable and of its slots: a gradient,
in which no variable's value has a part, or something that is computed with a slot. It counts when it
reaches a write of the variable or of a slot, perhaps by way of variables that are neither, as the sums of squares are
of which Adafactor makes its slot again. The rows of a sparse gradient count likewise, where their squares come to their
places in a tensor of the variable's shape before they are summed up.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from graphfreeze.prover.graph_view import Tensor
from graphfreeze.prover.handles import Context
from graphfreeze.prover.origins import Ends, Origin, Origins
from graphfreeze.prover.reach import Reach
from graphfreeze.prover.squares import Squared, squares
from graphfreeze.prover.targets import Target
from graphfreeze.prover.writes import write_of

__all__ = ["Norms", "find_norms"]


def find_norms(context: Context, targets: Mapping[int, Target], captured: Iterable[str]) -> dict[str, Target]:
    """The nodes whose first input has to be zero at frozen elements, by name, each with the variable it belongs to.

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
        holders = [target for owner, target in owners.items() if norms.belongs(name, target, slots[owner])]
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
        held = {(target.shape, target.dtype) for target in targets.values()}
        self._squared: dict[str, list[tuple[Squared, int]]] = {}
        marks: dict[Tensor, dict[Origin, None]] = {}
        numbers: dict[tuple[Tensor, Tensor | None, int | None], int] = {}
        for name, found in by_norm.items():
            if held.isdisjoint((squared.shape, self._dtype(name)) for squared in found):
                continue
            for squared in found:
                # What gathers rows of a whole and sums them up again counts as something else.
                height = None if squared.rows is None else squared.shape[0]
                # What is squared goes by a number that no object node has.
                number = numbers.setdefault((squared.tensor, squared.rows, height), -1 - len(numbers))
                marks.setdefault(squared.tensor, {})[Origin(number, squared.rows, height=height)] = None
                self._squared.setdefault(name, []).append((squared, number))
        self._ends: dict[int, Ends] = Origins(context, captured, {}, marks).ends() if marks else {}

    @property
    def nodes(self) -> list[str]:
        """The nodes that may belong to a variable."""
        return sorted(self._squared)

    def belongs(self, node: str, target: Target, slots: Container[int]) -> bool:
        """Whether a node is a norm of what updates a variable.

        Args:
            node: The node that sums up.
            target: The variable.
            slots: What its slots are.
        """
        found = self._squared.get(node, ())
        fine = {squared.tensor for squared, number in found if self._updates(squared, number, target, slots)}
        # A tensor may count as a whole or as rows, but every one that is squared has to count.
        if not found or not all(squared.tensor in fine for squared, _ in found):
            return False
        return self._reach.reaches(node, target.node_id, slots, self._targets)

    def _updates(self, squared: Squared, number: int, target: Target, slots: Container[int]) -> bool:
        if squared.shape != target.shape or self._dtype(squared.norm) != target.dtype:
            return False
        ends = self._ends.get(number)
        variables = [end for end in ends or () if isinstance(end, int)]
        if not variables or not all(variable == target.node_id or variable in slots for variable in variables):
            return False
        values = self._reach.values_behind(squared.tensor)
        return not values or any(variable is not None and variable in slots for variable in values)

    def _dtype(self, name: str) -> int:
        node = self._context.view.nodes[name]
        return int(node.attr["T"].type) if "T" in node.attr else 0
