"""Numbers that follow the sizes, computed at run time: polynomials of them, and such polynomials times sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from graphfreeze.lowering.tensor import Dim

if TYPE_CHECKING:
    from graphfreeze.lowering.engine import Lowering

__all__ = ["emit_polynomial", "emit_shape"]


def emit_polynomial(lowering: Lowering, arrays: Sequence[npt.NDArray[Any]]) -> ir.Value | None:
    """What the arrays are of the sizes (int64, at least rank 1), or None where they do not follow them so.

    Args:
        lowering: The graph that is being lowered.
        arrays: Their values at every sample.
    """
    found = lowering.sizes.fit(arrays)
    if found is None:
        return None
    emit = lowering.builder.emit
    total: ir.Value | None = None
    for monomial, factor in found.items():
        if not monomial:
            continue
        term = lowering.size(monomial[0])
        for name in monomial[1:]:
            term = emit("Mul", term, lowering.size(name))
        if factor.ndim or not np.all(factor == 1):
            term = emit("Mul", term, factor)
        total = term if total is None else emit("Add", total, term)
    offset = found.get(())
    if total is None:
        return lowering.builder.constant(np.atleast_1d(offset if offset is not None else np.zeros_like(arrays[0])))
    return total if offset is None else emit("Add", total, offset)


def emit_shape(lowering: Lowering, dims: Sequence[Dim]) -> ir.Value | None:
    """An int64 vector of polynomials, some times sizes that data decide; None where one is something else."""
    parts = [_emit_number(lowering, dim) for dim in dims]
    found = [part for part in parts if part is not None]
    return lowering.builder.emit("Concat", *found, axis=0) if len(found) == len(parts) else None


def _emit_number(lowering: Lowering, number: Dim) -> ir.Value | None:
    computed = emit_polynomial(lowering, [np.array([one], np.int64) for one in number])
    if computed is not None:
        return computed
    # The samples of a size are primes of its own: a number that all of them divide is a multiple of the size.
    for name, samples in lowering.sizes.samples.items():
        if all(one and not one % sample for one, sample in zip(number, samples, strict=True)):
            rest = _emit_number(lowering, tuple(one // sample for one, sample in zip(number, samples, strict=True)))
            return None if rest is None else lowering.builder.emit("Mul", lowering.size(name), rest)
    return None
