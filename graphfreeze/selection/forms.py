"""Which form of the masked read a variable gets: blend where it is exact, select elsewhere.

blend is `mask * var + stop_gradient((1 - mask) * const)`, with const -0.0 at trainable elements. It keeps every bit of
normal numbers and of both zeros at trainable elements. At frozen ones `0 * var` must be a zero, and adding that zero to
the constant must not change it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphfreeze.errors import SelectorError
from graphfreeze.selection.dtypes import dtype_kind
from graphfreeze.selection.plan import Form
from graphfreeze.selection.variable import Variable

__all__ = ["RequestedForm", "form_by_size", "resolve_form", "why_not_blend"]

RequestedForm = Literal["auto", "blend", "select"]

# A select may hold anything at trainable elements, so that the frozen values of a large variable need no copy on disk:
# the variable's own bytes do.
_LARGE = 1 << 28


def resolve_form(
    requested: RequestedForm, variable: Variable, value: npt.NDArray[Any], current: npt.NDArray[Any]
) -> Form:
    """The form that the variable gets.

    Args:
        requested: What the user asked for; `auto` also takes select for variables above 256 MiB.
        variable: The variable.
        value: Its frozen values; +0.0 at trainable elements.
        current: Its current value.

    Raises:
        SelectorError: blend is asked for where it is not exact.
    """
    by_size = form_by_size(requested, variable)
    if by_size is not None:
        return by_size
    reason = why_not_blend(variable, value, current)
    if requested == "blend" and reason is not None:
        raise SelectorError(
            f"variable {variable.name!r} cannot be frozen in the form blend without changing bits: {reason}. "
            "Use the form auto or select"
        )
    return "blend" if reason is None else "select"


def form_by_size(requested: RequestedForm, variable: Variable) -> Form | None:
    """The form, where it is known without looking at any value; else None."""
    large = requested == "auto" and variable.nbytes > _LARGE
    return "select" if requested == "select" or large else None


def why_not_blend(variable: Variable, value: npt.NDArray[Any], current: npt.NDArray[Any]) -> str | None:
    """Why blend would not be exact for these values, or None where it is."""
    if dtype_kind(variable.dtype) != "float":
        return f"its dtype {variable.dtype} is not floating"
    flaws = _flaws(value)
    if flaws:
        return f"a frozen value is {flaws[0]}"
    flaws = [] if value is current else [flaw for flaw in _flaws(current) if flaw != "-0.0"]
    return f"a current value is {flaws[0]}" if flaws else None


def _flaws(array: npt.NDArray[Any]) -> list[str]:
    if not np.isfinite(array).all():
        return ["not finite"]
    # bfloat16 has the exponents of float32, and no finfo of numpy's.
    exponents = np.dtype(np.float32) if array.dtype.name == "bfloat16" else array.dtype
    smallest = array.dtype.type(np.finfo(exponents).smallest_normal)
    small = array < smallest
    small &= array > -smallest
    # Zeros are told on the bits, because a library may have set the processor to treat denormals as zero.
    bits = array.view(f"u{array.dtype.itemsize}")
    negative_zero = 1 << (8 * array.dtype.itemsize - 1)
    flaws = ["-0.0"] if np.any(bits == negative_zero) else []
    small &= bits != 0
    small &= bits != negative_zero
    return [*flaws, "denormal"] if np.any(small) else flaws
