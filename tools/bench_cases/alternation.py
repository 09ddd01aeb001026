"""Measures several things in turn, so that whatever else the machine does hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

__all__ = ["Rounds", "Summary", "Timing", "Turn", "alternate", "summarise"]


@dataclass(frozen=True)
class Timing:
    """One step.

    Attributes:
        seconds: How long it took.
        processor: The processor time that its process spent meanwhile, in all threads.
    """

    seconds: float
    processor: float


Turn = Callable[[], Sequence[Timing]]
Rounds = Mapping[str, Sequence[Sequence[Timing]]]


@dataclass(frozen=True)
class Summary:
    """What the rounds of one side say.

    Attributes:
        median: Seconds of a step, of all steps.
        best: Seconds of the fastest step.
        processor: Median processor seconds of a step.
        ratio: The median over the rounds of this side's median step by that of the base in the same round: above 1
            where this side is slower than the base.
        best_ratio: The fastest step by the fastest of the base.
        processor_ratio: The processor seconds by those of the base.
    """

    median: float
    best: float
    processor: float
    ratio: float
    best_ratio: float
    processor_ratio: float


def alternate(turns: Mapping[str, Turn], rounds: int) -> dict[str, list[Sequence[Timing]]]:
    """Let every side have its turn in every round. Each round begins with another side.

    Args:
        turns: What makes a few steps of a side, by its name.
        rounds: How often each side has its turn.

    Returns:
        For each side its turns, in order.
    """
    names = list(turns)
    found: dict[str, list[Sequence[Timing]]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            found[name].append(turns[name]())
    return found


def summarise(rounds: Rounds, base: str) -> dict[str, Summary]:
    """Compare each side with the base, round by round.

    Args:
        rounds: What `alternate` returned, of one round or more.
        base: The name of the side that the others are compared with.
    """
    base_medians = [_median(turn) for turn in rounds[base]]
    base_best, base_processor = _best(rounds[base]), _processor(rounds[base])
    return {
        name: Summary(
            median=median(timing.seconds for turn in turns for timing in turn),
            best=_best(turns),
            processor=_processor(turns),
            ratio=median(_median(turn) / other for turn, other in zip(turns, base_medians, strict=True)),
            best_ratio=_best(turns) / base_best,
            processor_ratio=_processor(turns) / base_processor,
        )
        for name, turns in rounds.items()
    }


def _median(turn: Sequence[Timing]) -> float:
    return median(timing.seconds for timing in turn)


def _best(turns: Sequence[Sequence[Timing]]) -> float:
    return min(timing.seconds for turn in turns for timing in turn)


def _processor(turns: Sequence[Sequence[Timing]]) -> float:
    return median(timing.processor for turn in turns for timing in turn)
