"""When are two computations of one gradient the same up to rounding?

`t` is TensorFlow's tensor, `g` the artifact's: the same mathematics, summed in another order by other kernels. With
`error = max|g - t|`, `scale = max|t|`, `u` the unit roundoff of the dtype (2^-24 for float32) and `largest` the largest
scale among all gradients of the batch, `g` is accepted by the first of these rules that holds:

- **exact**: error = 0.
- **rounding**: error <= ROUNDING_UNITS * u * scale. Each of two sums of K terms has a relative error of about
  sqrt(K) * u, times the condition of the sum (the sum of the terms' magnitudes over the magnitude of the sum). For
  float32 the bound is 1e-4 of the tensor's scale: a well-conditioned sum of millions of terms, or a badly conditioned
  one of thousands.
- **zero**: the gradient is analytically zero: scale <= ZERO_UNITS * u * largest (a bias before batch normalization, the
  key bias of attention). What is computed is the rounding noise of terms that cancel, whose size is a few units of
  roundoff of those terms, and these appear in the gradients of neighbouring tensors. Relative error says nothing here;
  error <= ZERO_UNITS * u * largest does. A tensor that is small but genuine must not slip through this rule: its noise
  (below) is a tiny part of its scale, while noise that re-rolls its dice changes by about its own size.
- **noise**: error <= NOISE_FACTOR * noise, where noise is by how much TensorFlow's own gradient changes when parameters
  and inputs move by one unit in the last place. In a chaotic net (batch normalization over few values, knife-edge ReLU
  and max pooling) no two float32 implementations agree better than that. The factor covers that both sides roll their
  dice, and that one perturbation is a sample. Where NOISE_FACTOR * noise is more than a quarter of the scale, the rule
  would soon accept half a gradient, or none: then the tensor is accepted only if it does not matter (below 2^-10 of
  `largest`), and is otherwise **undecidable**, which fails: the reference batch is too chaotic to prove anything.

A gradient may be computed in a coarser dtype than its own: in mixed precision float32 parameters are cast to float16 or
bfloat16, and so are the activations and the gradients on their way back. Then

- the noise is that of moving parameters and inputs by one unit in the last place of the dtype that they are cast to:
  most smaller steps would vanish in the cast. This is the backward error of a computation that rounds to that dtype, as
  one unit of float32 is for one that rounds to float32. **rounding** stays that of the gradient's own dtype.
- u in **zero** is the unit roundoff of the coarser dtype.
- steps this large flip a ReLU somewhere in nearly every net, while two implementations that round at the same places
  rarely do. So there are runs with smaller steps, too, which take fewer and fewer numbers to the other side of their
  rounding, and the noise that **noise** compares with is the largest of the runs that do not hide the gradient (by
  NOISE_FACTOR not beyond a quarter of the scale), if there are any: a smaller bound, never a larger one.
- **noise** holds for error <= 2 * u * scale, too, whatever the runs show: both sides have rounded their numbers to that
  dtype once at least, by up to u each, and the few runs may not show it in a tensor of few elements.
- beyond that, **noise** also asks for |slope - 1| <= NOISE_FACTOR * slope noise, where slope = <g, t> / <t, t>:
  elements that are rounded independently leave the slope alone, a wrong factor does not, however much each element is
  rounded. The slope noise is by how much the slope moves in the same runs.

What this still hides, about u itself in a small tensor, shows in float64, in which `rewrite` compares the same graphs.

Anything else is **different**. NaN or infinity on either side is **not finite**, which fails too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import numpy.typing as npt

__all__ = ["NOISE_FACTOR", "Coarse", "Comparison", "Rule", "compare", "hides", "scale_of", "slope", "unit_roundoff"]

Rule = Literal["exact", "rounding", "zero", "noise", "undecidable", "different", "not finite"]

# 1e-4 in float32. Sixteen-bit tensors are computed in float32 and rounded a few times on the way.
ROUNDING_UNITS = 1e-4 * 2.0**24
ROUNDING_UNITS_16_BIT = 16.0
ZERO_UNITS = 16.0
NOISE_FACTOR = 4.0
_BOTH_ROUNDED = 2.0

# A genuine gradient's noise is below this part of its scale; a cancelled one's noise is about its scale. Computed in a
# coarser dtype, noise starts at that dtype's roundoff, and the line is drawn between it and the scale itself.
_GENUINE = 2.0**-10
_GENUINE_COARSE = 2.0**-4
# A tensor whose noise hides it may be accepted below this part of the largest gradient.
_IMMATERIAL = 2.0**-10


@dataclass(frozen=True)
class Coarse:
    """What is known of a gradient that is computed in a coarser dtype than its own.

    Attributes:
        roundoff: The unit roundoff of that dtype.
        noise: The largest noise among the runs that do not hide the gradient, or among all where each does.
        slope_noise: The largest change of the slope in the same runs.
    """

    roundoff: float
    noise: float
    slope_noise: float


@dataclass(frozen=True)
class Comparison:
    """The verdict on one tensor.

    Attributes:
        accepted: Whether the tensors are the same up to rounding.
        rule: The rule that decided.
        error: max|g - t|; NaN where either is not finite.
        relative_l2: |g - t| / |t| in the Euclidean norm; 0 where both are zero, infinite where only t is.
        scale: max|t|.
        noise: The noise of t.
        allowed: The largest error that any rule would have accepted.
    """

    accepted: bool
    rule: Rule
    error: float
    relative_l2: float
    scale: float
    noise: float
    allowed: float


def compare(
    g: npt.NDArray[Any], t: npt.NDArray[Any], *, largest: float, noise: float = 0.0, coarse: Coarse | None = None
) -> Comparison:
    """Compare a tensor with its reference.

    Args:
        g: The tensor in question.
        t: The reference, of the same shape and dtype.
        largest: The largest `scale_of` among the tensors that are computed together with t.
        noise: By how much t changes under a perturbation of one unit in the last place.
        coarse: Where t is computed in a coarser dtype than its own: what is known of that.
    """
    if g.shape != t.shape:
        raise ValueError(f"expected the shape {t.shape}, found {g.shape}")
    unit = unit_roundoff(t.dtype)
    exact_g, exact_t = g.astype(np.float64), t.astype(np.float64)
    if not (np.isfinite(exact_g).all() and np.isfinite(exact_t).all() and np.isfinite(noise)):
        return Comparison(False, "not finite", np.nan, np.nan, scale_of(t), noise, 0.0)
    difference = exact_g - exact_t
    error, scale = scale_of(difference), scale_of(exact_t)
    rounding = (ROUNDING_UNITS_16_BIT if t.dtype.itemsize == 2 else ROUNDING_UNITS) * unit * scale
    negligible = ZERO_UNITS * (unit if coarse is None else coarse.roundoff) * largest
    calm = noise if coarse is None else coarse.noise
    genuine = 0 < calm < (_GENUINE if coarse is None else _GENUINE_COARSE) * scale
    zero = negligible if scale <= negligible and not genuine else 0.0
    noisy = NOISE_FACTOR * calm if not hides(calm, scale) or scale <= _IMMATERIAL * largest else 0.0
    if coarse is not None:
        if not abs(slope(exact_g, exact_t) - 1) <= NOISE_FACTOR * coarse.slope_noise:
            noisy = 0.0
        noisy = max(noisy, _BOTH_ROUNDED * coarse.roundoff * scale)
    accepted_by: list[tuple[Rule, float]] = [("exact", 0.0), ("rounding", rounding), ("zero", zero), ("noise", noisy)]
    rule: Rule = next((rule for rule, allowed in accepted_by if error <= allowed), "different")
    accepted = rule != "different"
    if not accepted and hides(noise, scale) and error <= NOISE_FACTOR * noise:
        rule = "undecidable"
    return Comparison(
        accepted, rule, error, _relative_l2(difference, exact_t), scale, noise, max(rounding, zero, noisy)
    )


def hides(noise: float, scale: float) -> bool:
    """Whether a tensor of that scale cannot be judged by that noise."""
    return NOISE_FACTOR * noise > scale / 4


def slope(g: npt.NDArray[Any], t: npt.NDArray[Any]) -> float:
    """<g, t> / <t, t>: by what factor g is t, on the whole; 1 where t is zero."""
    exact = t.astype(np.float64)
    square = float(np.vdot(exact, exact))
    return float(np.vdot(g.astype(np.float64), exact)) / square if square else 1.0


def scale_of(tensor: npt.NDArray[Any]) -> float:
    """max|t|, 0 for an empty tensor."""
    return float(np.abs(tensor.astype(np.float64)).max(initial=0.0))


def unit_roundoff(dtype: np.dtype[Any]) -> float:
    """Half the distance from 1 to the next larger number of the dtype."""
    # numpy's own finfo does not know bfloat16.
    finfo: Any = ml_dtypes.finfo
    return float(finfo(dtype).eps) / 2


def _relative_l2(difference: npt.NDArray[Any], t: npt.NDArray[Any]) -> float:
    norm, reference = float(np.linalg.norm(difference)), float(np.linalg.norm(t))
    return 0.0 if norm == 0 else (norm / reference if reference else np.inf)
