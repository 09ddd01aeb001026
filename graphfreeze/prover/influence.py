"""What the values of variables influence in a model, and where frozen elements must have no part in that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from graphfreeze.prover.behind import Behind
from graphfreeze.prover.bodies import Bodies
from graphfreeze.prover.directions import Directions
from graphfreeze.prover.ends import DirectionEnd, Ends, NormEnd
from graphfreeze.prover.graph_view import Tensor
from graphfreeze.prover.handles import Binding, Context
from graphfreeze.prover.norms import Norms, SquaresOfTargets
from graphfreeze.prover.origins import Origins
from graphfreeze.prover.targets import Target

__all__ = ["Beginning", "Influence", "Norm", "Zeroed"]


class Norm(NamedTuple):
    """What a node sums up.

    Attributes:
        target: The variable of whose elements it is made.
        rows: The indices of the variable's rows that it sums up; None where it is all of them.
    """

    target: Target
    rows: Tensor | None


class Beginning(NamedTuple):
    """The input of a direction.

    Attributes:
        target: The variable that the direction updates.
        dtype: The input's DataType.
    """

    target: Target
    dtype: int


class Zeroed(NamedTuple):
    """Where frozen elements have to be zero in one body.

    Attributes:
        norms: The nodes in whose first input they do, by name.
        beginnings: The tensors in which they do for all that computes with them, by node and position.
    """

    norms: dict[str, Norm]
    beginnings: dict[tuple[str, int], Beginning]

    def agreed(self, other: Zeroed) -> Zeroed:
        """What holds in another context of the same body, too."""
        return Zeroed(
            {name: norm for name, norm in self.norms.items() if other.norms.get(name) == norm},
            {key: found for key, found in self.beginnings.items() if other.beginnings.get(key) == found},
        )


class Influence:
    """The bodies of a model, with what is found in them.

    Args:
        bodies: The bodies.
        targets: The targeted variables by object node.
        candidates: What may be a slot of one of these.
        captured: By function, the tensors of it that custom gradients capture.

    Attributes:
        ends: Where the values of all reads of each candidate end, of those that end anywhere.
    """

    def __init__(
        self,
        bodies: Bodies,
        targets: Mapping[int, Target],
        candidates: Mapping[int, Target],
        captured: Mapping[str, Iterable[str]],
    ) -> None:
        self._bodies = bodies
        self._targets = targets
        behind = Behind(bodies)
        self._directions = Directions(bodies, behind, targets, captured)
        self._squares = SquaresOfTargets(bodies, targets.values(), self._directions.is_pure)
        heights = {
            node_id: candidate.shape[0] if candidate.shape else None for node_id, candidate in candidates.items()
        }
        origins = Origins(bodies, captured, heights, self._squares.marked, self._directions.inputs)
        self.ends: dict[int, Ends] = origins.ends()
        self._norms = Norms(self._squares, self.ends, bodies, behind, targets, self._directions.belongs)

    def belongs(self, end: NormEnd | DirectionEnd, owner: int, slots: set[int]) -> bool:
        """Whether a norm or a direction belongs to a variable with these slots."""
        if isinstance(end, DirectionEnd):
            return self._directions.belongs(end, self._targets[owner], slots)
        return self._norms.belongs(end, self._targets[owner], slots)

    def updated(self, direction: DirectionEnd) -> frozenset[int]:
        """The variables in whose updates all ends that a direction computes."""
        return self._directions.inputs[direction].updated

    def zeroed(self, slots: Mapping[int, Target]) -> dict[tuple[str, Binding], Zeroed]:
        """Where frozen elements have to be zero, by function and what is bound there of targeted variables and slots.

        Args:
            slots: What the slots are.
        """
        of: dict[int, set[int]] = {owner: set() for owner in self._targets}
        for node_id, slot in slots.items():
            if slot.slot_of is not None:
                of[slot.slot_of.node_id].add(node_id)
        by_context: dict[Context, Zeroed] = {}
        holders: dict[NormEnd, list[Norm]] = {}
        for norm in self._squares.ends:
            held = [Norm(t, norm.rows) for t in self._targets.values() if self._norms.belongs(norm, t, of[t.node_id])]
            holders.setdefault(norm._replace(rows=None), []).extend(held)
        for norm, found in holders.items():
            # What two variables have a part in belongs to neither: each has elements of its own that are frozen.
            if len(found) == 1:
                by_context.setdefault(norm.context, Zeroed({}, {})).norms[norm.node] = found[0]
        for end, direction in self._directions.inputs.items():
            for target in self._targets.values():
                if self._directions.belongs(end, target, of[target.node_id]):
                    found_here = by_context.setdefault(end.context, Zeroed({}, {}))
                    found_here.beginnings[end.node, end.position] = Beginning(target, direction.dtype)
        result: dict[tuple[str, Binding], Zeroed] = {}
        for (function, binding), context in self._bodies.contexts.items():
            key = (function, tuple((k, v) for k, v in binding if v in self._targets or v in slots))
            here = by_context.get(context, Zeroed({}, {}))
            result[key] = result[key].agreed(here) if key in result else here
        return {key: zeroed for key, zeroed in result.items() if zeroed.norms or zeroed.beginnings}
