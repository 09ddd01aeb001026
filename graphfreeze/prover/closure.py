"""The largest sets of candidates that end in their variable, in one another, and in what is masked for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphfreeze.prover.ends import DirectionEnd, End, Ends, NormEnd

__all__ = ["Closure"]

Belongs = Callable[[NormEnd | DirectionEnd, int, set[int]], bool]
"""Takes a norm or direction, a variable, and what its slots are: whether it then belongs to the variable."""
Updated = Callable[[DirectionEnd], frozenset[int]]
"""Takes a direction: the variables that it updates."""


class Closure:
    """The slots of all variables. Variables go by their object nodes.

    Args:
        candidates: What may be a slot, by variable.
        ends: Where the values of each candidate end.
        beside: What is a slot by an optimizer's operation, wherever its values end.
        belongs: Whether a norm or direction belongs to a variable.
        updated: Which variables a direction updates.
    """

    def __init__(
        self,
        candidates: Mapping[int, set[int]],
        ends: Mapping[int, Ends],
        beside: Mapping[int, set[int]],
        belongs: Belongs,
        updated: Updated = lambda _: frozenset(),
    ) -> None:
        self._candidates = candidates
        self._ends = {candidate: found for candidate, found in ends.items() if found is not None}
        self._beside = beside
        self._belongs = belongs
        self._updated = updated

    def slots_of(self, owner: int) -> set[int]:
        """The slots of a variable."""
        kept = {candidate for candidate in self._candidates[owner] if candidate in self._ends}
        while True:
            closed = self._closed(owner, kept)
            feeding = self._feeding(owner, closed)
            # Those from which the variable is not reached are no slots: what belonged to it by them alone does not.
            fine = self._judge(owner, feeding)
            wrong = {slot for slot in feeding if not all(fine(end) for end in self._ends[slot])}
            if not wrong:
                return feeding | self._beside[owner]
            kept = closed - wrong

    def _closed(self, owner: int, kept: set[int]) -> set[int]:
        """Those that end in the owner, in one another, and in what then belongs to the owner."""
        while True:
            fine, allowed = self._judge(owner, kept), {owner, *kept}
            left = {n for n in kept if all(e in allowed if isinstance(e, int) else fine(e) for e in self._ends[n])}
            if left == kept:
                return kept
            kept = left

    def _feeding(self, owner: int, closed: set[int]) -> set[int]:
        """Those from which the owner is reached."""
        reached = {n: self._reached_from(n) for n in closed}
        feeding: set[int] = {n for n in closed if owner in reached[n]}
        while more := {n for n in closed - feeding if reached[n] & feeding}:
            feeding |= more
        return feeding

    def _reached_from(self, candidate: int) -> set[int]:
        """The variables in whose updates a candidate ends, also by way of directions."""
        found: set[int] = set()
        for end in self._ends[candidate]:
            if isinstance(end, DirectionEnd):
                found |= self._updated(end)
            elif isinstance(end, int):
                found.add(end)
        return found

    def _judge(self, owner: int, slots: set[int]) -> Callable[[End], bool]:
        """Says of an end whether it is an update, or belongs to the owner where these are its slots."""
        given = slots | self._beside[owner]
        known: dict[NormEnd | DirectionEnd, bool] = {}

        def fine(end: End) -> bool:
            if isinstance(end, int):
                return True
            if end not in known:
                known[end] = self._belongs(end, owner, given)
            return known[end]

        return fine
