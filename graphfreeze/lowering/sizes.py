"""Sizes that only run time knows: of the batch, the length of its sequences, and how much data pick.

A graph is interpreted at several samples of them at once. What differs from sample to sample is a polynomial of the
sizes, which is found from its values, or else computed at run time as TensorFlow would.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.quotients import NewQuotient, Quotient, quotient_of, sample_lengths
from graphfreeze.lowering.tensor import Dim

__all__ = ["BATCH", "LENGTH", "PICKED", "Monomial", "Sizes"]

BATCH, LENGTH = "batch", "length"
"""What sizes are called in the graphs' shapes and in the manifest."""

PICKED = "picked_"
"""How the names of sizes begin that data decide; a number follows."""

Monomial = tuple[str, ...]
"""A product of sizes, by their names."""

# Numbers that no dimension of a model is likely to equal, not all of them odd. There is one sample more than a
# polynomial has coefficients: it checks it.
_BATCHES = (1009, 1514, 2003, 1201, 1613, 1409, 1801)
_LENGTHS = (307, 398, 353, 503, 223, 443, 271)
_MORE_BATCHES = (1301, 1906, 1109, 1723, 1499, 1051, 1999)
_SHORTER = ((61, 53, 59, 47, 43, 41, 38), (8, 7, 5, 6, 4, 3, 2))
"""Lengths for models that take no longer sequences: as many as a table of positions has rows. Few numbers are as small,
and small ones have much in common: each is looked at with two batches."""
_PRIMES = [n for n in range(57, 3000) if all(n % divisor for divisor in range(2, 55))]
_ROUNDS = 4
_LEAST = {BATCH: 1009, LENGTH: 211}
"""From where on more samples of a size are taken. What is picked is less: it is picked of these."""


@dataclass(frozen=True)
class Sizes:
    """The samples, and the polynomials of them.

    Attributes:
        samples: Each size at every sample.
        monomials: What a polynomial is made of.
        quotients: What strides leave of the length. Those that the others give are no sizes of their own.
    """

    samples: dict[str, Dim]
    monomials: tuple[Monomial, ...]
    quotients: tuple[Quotient, ...] = ()

    @classmethod
    def of_batch(cls) -> Sizes:
        """The batch alone."""
        return cls({BATCH: _BATCHES[:3]}, ((), (BATCH,)))

    @classmethod
    def of_sequences(cls) -> Sizes:
        """The batch, and the length of its sequences, squared where each place looks at every other."""
        monomials: tuple[Monomial, ...] = ((), (BATCH,), (LENGTH,), (BATCH, LENGTH), (LENGTH, LENGTH))
        return cls({BATCH: _BATCHES, LENGTH: _LENGTHS}, (*monomials, (BATCH, LENGTH, LENGTH)))

    @property
    def shorter(self) -> list[Sizes]:
        """The same with shorter sequences; none where no length is open, or more than one thing is."""
        if self != Sizes.of_sequences():
            return []
        batches = (*_BATCHES, *_MORE_BATCHES)
        return [Sizes({BATCH: batches, LENGTH: lengths * 2}, self.monomials) for lengths in _SHORTER]

    @classmethod
    def fixed(cls) -> Sizes:
        """No size changes."""
        return cls({BATCH: _BATCHES[:1]}, ((),))

    def with_picked(self, count: int) -> Sizes:
        """These, and as many that data decide."""
        if not count:
            return self
        names = [f"{PICKED}{index}" for index in range(count)]
        monomials = (*self.monomials, *((name,) for name in names))
        samples, points = {}, len(monomials) + 1
        for index, name in enumerate((*self.samples, *names)):
            known = self.samples.get(name, ())[:points]
            others = [prime for prime in _PRIMES if prime >= _LEAST.get(name, 0) and prime not in known][
                : 2 * points + 20
            ]
            random.Random(index).shuffle(others)
            samples[name] = (*known, *others[: points - len(known)])
        return Sizes(samples, monomials)

    def with_quotients(self, quotients: Sequence[Quotient]) -> Sizes:
        """These, and what strides leave of the length.

        Both quotients by 2 add up to the length: the second one is no size of its own, but what the first one leaves.
        """
        lengths = sample_lengths(self.samples[LENGTH], quotients)
        samples, rng = {}, random.Random(0)
        for name, known in self.samples.items():
            primes = [prime for prime in _PRIMES if prime >= _LEAST.get(name, 0) and prime not in known]
            samples[name] = (*known, *rng.sample(primes, len(lengths) - len(known)))
        sizes = Sizes(samples | {LENGTH: lengths}, self.monomials, tuple(quotients))
        for quotient in quotients:
            left, name = quotient.of(lengths), quotient.name
            if not sizes.follows(left):
                monomials = (*sizes.monomials, (name,), (BATCH, name), (name, name), (BATCH, name, name))
                sizes = Sizes(sizes.samples | {name: left}, monomials, sizes.quotients)
        return sizes

    def divided(self, dim: Dim, more: int, divisor: int, *, is_filled: bool = False) -> Quotient | None:
        """The quotient that gives `(dim + more) // divisor` at every length, or None where there is no such formula.

        Args:
            dim: A number at every sample.
            more: A number.
            divisor: A number above 0.
            is_filled: Whether so many windows are over an array, of which there is one at least.

        Raises:
            NewQuotient: It is none of these sizes yet.
        """
        if LENGTH not in self.samples:
            return None
        found = quotient_of(dim, more, divisor, self.samples[LENGTH], self.quotients)
        if found is None or found.divisor == 1:
            return found
        known = next((quotient for quotient in self.quotients if quotient == found), None)
        if known is None or (is_filled and not known.is_filled):
            raise NewQuotient(replace(found, is_filled=is_filled))
        return known

    def name(self, dim: Dim) -> str | None:
        """The name of the size that a dimension is."""
        samples = self.samples | {other.name: other.of(self.samples[LENGTH]) for other in self.quotients}
        return next((name for name, known in samples.items() if known == dim and len(dim) > 1), None)

    def origin(self, number: Dim) -> str:
        """What a number follows that only run time knows, for a message."""
        found = self.fit([np.asarray(one) for one in number]) or {}
        names = {name for monomial in found for name in monomial}
        lengths = {LENGTH, *(quotient.name for quotient in self.quotients)}
        if names and names <= lengths:
            return "the length of sequences"
        return "the batch size" if names == {BATCH} else "sizes that only run time knows"

    def follows(self, number: Dim) -> bool:
        """Whether a number is the same at every sample, or a polynomial of the sizes."""
        return len(set(number)) == 1 or self.fit([np.asarray(one) for one in number]) is not None

    def least(self, number: Dim) -> int | None:
        """The least that a number can be, whatever the sizes are; None where that cannot be told.

        The batch and its sequences hold something, and so does what strides leave of them; of what data pick there may
        be nothing.
        """
        if len(set(number)) == 1:
            return number[0]
        bound = self.bound([np.asarray(one) for one in number])
        return int(bound) if np.isfinite(bound) else None

    def bound(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """The least that each element can be, whatever the sizes are; minus infinity where that cannot be told."""
        found = self.fit(arrays)
        total = np.full(arrays[0].shape, 0.0 if found is not None else -np.inf)
        for monomial, factor in (found or {}).items():
            if monomial:
                total[factor < 0] = -np.inf
            total += factor * min((self._fewest(name) for name in monomial), default=1)
        return total

    def _fewest(self, name: str) -> int:
        """The least that a size can be: 0 or 1."""
        left = next((quotient for quotient in self.quotients if quotient.name == name), None)
        return int(not name.startswith(PICKED)) if left is None else left.least

    def reaches(self, number: Dim, other: Dim | int) -> bool:
        """Whether a number is as large as another one, whatever the sizes are."""
        least = self.least(plus(number, other, -1))
        return least is not None and least >= 0

    def fit(self, arrays: Sequence[npt.NDArray[Any]]) -> dict[Monomial, npt.NDArray[np.int64]] | None:
        """The integer coefficients, not all of them zero, by which the arrays follow the sizes; None where they do not.

        Args:
            arrays: Values at every sample.
        """
        if len({array.shape for array in arrays}) > 1 or arrays[0].dtype.kind not in "iuf":
            return None
        values = np.stack([array.astype(np.float64).reshape(-1) for array in arrays])
        if not np.isfinite(values).all():
            return None
        coefficients = self._solve(values)
        if coefficients is None:
            return None
        shape = arrays[0].shape
        return {m: c.reshape(shape) for m, c in zip(self.monomials, coefficients, strict=True) if c.any()}

    def _solve(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64] | None:
        """The whole coefficients that give the values exactly."""
        columns = self._columns[: len(values)]
        scale = columns.max(axis=0).astype(np.float64)
        total = np.zeros((len(self.monomials), values.shape[1]), np.int64)
        left = values
        # A quotient is nearly proportional to the length. What a first solution misses, a second one finds.
        for _ in range(_ROUNDS if self.quotients else 1):
            solved = np.linalg.lstsq(columns / scale, left, rcond=None)[0] / scale[:, None]
            whole = np.rint(solved)
            if np.abs(whole).max(initial=0) > 2**31:
                return None
            total += whole.astype(np.int64)
            left = values - columns @ total
            if not left.any():
                return total
        return None

    @cached_property
    def _columns(self) -> npt.NDArray[np.int64]:
        """Each monomial at every sample."""
        sizes = {name: np.array(samples, np.int64) for name, samples in self.samples.items()}
        ones = np.ones(len(self.samples[BATCH]), np.int64)
        return np.stack([math.prod((sizes[name] for name in m), start=ones) for m in self.monomials], axis=1)
