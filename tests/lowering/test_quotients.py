"""What strides leave of the length: one more size, known exactly whatever the samples are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphfreeze.lowering.quotients import Quotient, quotient_of
from graphfreeze.lowering.sizes import Sizes

HALVES = [Quotient(1, 2), Quotient(3, 4), Quotient(7, 8), Quotient(15, 16), Quotient(31, 32), Quotient(63, 64)]
SPEECH = [Quotient(0, 5), Quotient(3, 10), Quotient(7, 20), Quotient(15, 40), Quotient(70, 160), Quotient(150, 320)]
CHAINS = [HALVES[:1], HALVES[:3], HALVES, [Quotient(0, 2), Quotient(0, 4), Quotient(2, 4)], SPEECH]


def values(sizes: Sizes, names: Any) -> Any:
    return np.prod([np.array(sizes.samples[name]) for name in names], axis=0, initial=1)


@pytest.mark.parametrize("quotients", CHAINS)
@pytest.mark.parametrize("picked", [0, 2])
def test_polynomials_are_found_exactly(quotients: list[Quotient], picked: int) -> None:
    sizes = Sizes.of_sequences().with_picked(picked).with_quotients(quotients)
    rng = np.random.default_rng(0)
    assert len({len(samples) for samples in sizes.samples.values()}) == 1
    for _ in range(60):
        chosen = [sizes.monomials[n] for n in rng.choice(len(sizes.monomials), 3, replace=False)]
        factors = [int(factor) for factor in rng.choice([-100, -1, 1, 3, 64, 1000], 3)]
        total = sum(factor * values(sizes, names) for factor, names in zip(factors, chosen, strict=True))
        found = sizes.fit([np.asarray(number) for number in np.broadcast_to(total, len(sizes.samples["batch"]))])
        assert found is not None
        assert {names: int(factor) for names, factor in found.items()} == dict(zip(chosen, factors, strict=True))


@pytest.mark.parametrize("quotients", CHAINS)
def test_no_other_quotient_is_taken_for_one(quotients: list[Quotient]) -> None:
    sizes = Sizes.of_sequences().with_quotients(quotients)
    lengths = np.arange(1000, 3000)
    known = {"length": lengths} | {q.name: np.array(q.of(tuple(lengths.tolist()))) for q in quotients}
    for divisor in {quotient.divisor for quotient in quotients}:
        for offset in range(divisor):
            other = Quotient(offset, divisor)
            found = sizes.fit([np.asarray(number) for number in other.of(sizes.samples["length"])])
            if found is not None:
                # Halves that are rounded up and down are the length together, and so on: that holds for all lengths.
                total = sum(factor * (known[names[0]] if names else 1) for names, factor in found.items())
                np.testing.assert_array_equal(total, (lengths + offset) // divisor)


def test_what_strides_leave() -> None:
    lengths = Sizes.of_sequences().with_quotients([Quotient(1, 2)]).samples["length"]

    def left(dim: Any, more: int, stride: int, known: Any = ()) -> Quotient | None:
        return quotient_of(tuple(dim), more, stride, lengths, known)

    half = Quotient(1, 2)
    assert left(lengths, 1, 2) == half
    assert left((n - 2 for n in lengths), 0, 2) == Quotient(0, 2)
    assert left(half.of(lengths), -1, 2, [half]) == Quotient(3, 4)
    assert left((2 * n + 1 for n in lengths), 0, 4) == Quotient(0, 2)
    assert left((-n for n in lengths), 0, 4) == Quotient(3, 4) and left((5 - 2 * n for n in lengths), 0, 4) == Quotient(
        1, 2
    )
    assert left((n + n % 2 for n in lengths), 0, 4, [Quotient(0, 2)]) == half
    assert left((n + n % 2 for n in lengths), 0, 4, [Quotient(0, 2), half]) == Quotient(1, 4)
    assert left((4 * n for n in lengths), 1, 2) == Quotient(0, 1)
    assert left((3 * n for n in lengths), 1, 2) is None
    assert left(half.of(lengths), 1, 2) is None and left(lengths, 0, 5000) is None
    assert [Quotient(0, 3).name, half.name] == ["length_div_3", "length_plus_1_div_2"]


def test_least() -> None:
    arithmetic = [Quotient(0, 2), Quotient(2, 3), Quotient(3, 4, is_filled=True)]
    sizes = Sizes.of_sequences().with_quotients(arithmetic)
    assert [sizes.least(sizes.samples[quotient.name]) for quotient in arithmetic] == [0, 1, 1]
    lengths, half = (np.array(sizes.samples[name]) for name in ("length", "length_div_2"))
    assert sizes.least(tuple((lengths + 5 * half).tolist())) == 1
    assert sizes.least(tuple((lengths - half).tolist())) is None


def test_the_second_half_is_no_size_of_its_own() -> None:
    sizes = Sizes.of_sequences().with_quotients([Quotient(1, 2), Quotient(0, 2)])
    down = Quotient(0, 2).of(sizes.samples["length"])
    assert "length_div_2" not in sizes.samples and sizes.name(down) == "length_div_2"
    found = sizes.fit([np.asarray(number) for number in down])
    assert found is not None and {names: int(f) for names, f in found.items()} == {
        ("length",): 1,
        ("length_plus_1_div_2",): -1,
    }
