"""What strides leave of the length of sequences: (length + offset) // divisor, which is one more size.

Strides one after the other stay in this class: a quotient of a quotient is one of the length. So what a convolution or
a pooling makes of it follows from its own formula, and need not be guessed from what comes out at the samples.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from graphfreeze.lowering.builder import Builder
from graphfreeze.lowering.numbers import plus
from graphfreeze.lowering.tensor import Dim

__all__ = ["NewQuotient", "Quotient", "quotient_of", "sample_lengths"]

_LARGEST = 4096
"""The largest divisor. Lengths are sampled far beyond it, and products of these must stay exact."""
_FEW = 64
"""Up to here other quotients of a known divisor are looked for: what is filled up to a multiple of it is one."""
_MORE = 6
"""Samples for each quotient beside those: together twice as many as there are coefficients more."""


@dataclass(frozen=True, slots=True)
class Quotient:
    """`(length + offset) // divisor`.

    Attributes:
        offset: From 0 on, below the divisor: whole numbers more or less are no new size.
        divisor: A product of strides.
        is_filled: Whether a convolution or a pooling leaves it, and so something: it is taken for at least 1, as the
            batch and the length are. What arithmetic makes of the length may be 0.
    """

    offset: int
    divisor: int
    is_filled: bool = field(default=False, compare=False)

    @property
    def name(self) -> str:
        """What the size is called in the graphs' shapes: an identifier."""
        return f"length_plus_{self.offset}_div_{self.divisor}" if self.offset else f"length_div_{self.divisor}"

    def of(self, lengths: Dim) -> Dim:
        """The size for each length."""
        return tuple((length + self.offset) // self.divisor for length in lengths)

    @property
    def least(self) -> int:
        """The least that it can be."""
        return 1 if self.is_filled else (1 + self.offset) // self.divisor

    def emit(self, builder: Builder, length: ir.Value) -> ir.Value:
        """The size at run time, of the length: both int64 of shape [1]."""
        outer, builder.scope = builder.scope, f"{self.name}_size"
        if self.offset:
            length = builder.emit("Add", length, builder.int64([self.offset]))
        size = builder.emit("Div", length, builder.int64([self.divisor]))
        builder.scope = outer
        return size


def sample_lengths(first: Dim, quotients: Sequence[Quotient]) -> Dim:
    """Lengths that tell these quotients from any others: the first ones if they are large enough, and more.

    Two are on either side of where a quotient grows, which no other one of its divisor does there.
    """
    least = max(211, *(25 * quotient.divisor for quotient in quotients))
    rng = random.Random(0)
    lengths = [length if length >= least else rng.randrange(least, 4 * least) for length in first]
    for quotient in quotients:
        rng = random.Random(quotient.offset + 4099 * quotient.divisor)
        edge = rng.randrange(least, 4 * least) // quotient.divisor * quotient.divisor + quotient.divisor
        lengths += [edge - quotient.offset - 1, edge - quotient.offset]
        lengths += [rng.randrange(least, 4 * least) for _ in range(_MORE)]
    return tuple(lengths)


class NewQuotient(Exception):  # noqa: N818 - no error: lowering starts again with this size
    """A size that an operation makes of the length of sequences, and that is none of the graph's yet."""

    def __init__(self, quotient: Quotient) -> None:
        super().__init__(quotient.name)
        self.quotient = quotient


def quotient_of(dim: Dim, more: int, divisor: int, lengths: Dim, known: Sequence[Quotient]) -> Quotient | None:
    """The quotient that gives `(dim + more) // divisor`: as `factor * quotient + number`, of either sign.

    None where there is none: the dimension must be such a multiple of the length or of a quotient itself, and of its
    factor and the divisor one must divide the other. Where that quotient is not known, it is given: it must be first.
    """
    divisors = sorted({quotient.divisor for quotient in known if quotient.divisor <= _FEW})
    others = [Quotient(offset, divisor) for divisor in divisors for offset in range(divisor)]
    sizes = [Quotient(0, 1), *known]
    for size in (*sizes, *(other for other in others if other not in known)):
        samples = size.of(lengths)
        factor, is_whole = _slope(dim, samples)
        rests = set(plus(dim, samples, -factor))
        if not is_whole or not factor or len(rests) > 1:
            continue
        if factor % divisor == 0 or size not in sizes:
            return size
        if divisor % factor:
            return None
        parts, rest = divisor // abs(factor), (rests.pop() + more) // abs(factor)
        # What is rounded down of less than nothing is rounded up of its opposite.
        offset = size.offset + size.divisor * (rest if factor > 0 else parts - 1 - rest)
        total = size.divisor * parts
        return Quotient(offset % total, total) if total <= _LARGEST else None
    return None


def _slope(dim: Dim, samples: Dim) -> tuple[int, bool]:
    low, high = (find(range(len(samples)), key=samples.__getitem__) for find in (min, max))
    factor, rest = divmod(dim[high] - dim[low], samples[high] - samples[low])
    return factor, rest == 0
