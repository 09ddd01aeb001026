from __future__ import annotations

from collections.abc import Sequence

import pytest

from tools.bench_cases.alternation import Timing, Turn, alternate, summarise


def test_each_side_has_its_turn_in_each_round_and_another_one_begins() -> None:
    order: list[str] = []

    def turn(name: str) -> Turn:
        def run() -> Sequence[Timing]:
            order.append(name)
            return [Timing(float(len(order)), 0.0)]

        return run

    found = alternate({name: turn(name) for name in "abc"}, 3)
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert [timing.seconds for turn in found["a"] for timing in turn] == [1.0, 6.0, 8.0]


def test_nothing_to_measure() -> None:
    assert alternate({}, 3) == {}
    assert alternate({"a": lambda: [Timing(1.0, 1.0)]}, 0) == {"a": []}


def test_noise_that_hits_a_whole_round_leaves_the_ratio_alone() -> None:
    quiet = {"ours": [[Timing(1.0, 1.0)] * 3] * 4, "theirs": [[Timing(2.0, 1.5)] * 3] * 4}
    noise = [1.0, 10.0, 100.0, 3.0]
    noisy = {
        name: [
            [Timing(t.seconds * factor, t.processor) for t in turn] for turn, factor in zip(turns, noise, strict=True)
        ]
        for name, turns in quiet.items()
    }
    found = summarise(noisy, "ours")
    assert found["theirs"].ratio == 2.0
    assert found["theirs"].processor_ratio == 1.5
    assert found["ours"].ratio == found["ours"].best_ratio == found["ours"].processor_ratio == 1.0


def test_median_and_best_of_all_steps() -> None:
    turns = [[Timing(5.0, 0.1), Timing(1.0, 0.2)], [Timing(3.0, 0.6)]]
    found = summarise({"ours": turns, "theirs": [[Timing(8.0, 1.0)], [Timing(4.0, 1.0)]]}, "ours")
    assert (found["ours"].median, found["ours"].best, found["ours"].processor) == (3.0, 1.0, 0.2)
    assert found["theirs"].best_ratio == 4.0
    assert found["theirs"].ratio == pytest.approx((8 / 3 + 4 / 3) / 2)
    assert found["theirs"].processor_ratio == 5.0
