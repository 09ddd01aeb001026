from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.validation.tolerance import Coarse, Rule, compare, slope, unit_roundoff

U = 2.0**-24


def tensor(*values: float) -> npt.NDArray[Any]:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("g", "t", "largest", "noise", "rule"),
    [
        # exact
        (tensor(1, -2), tensor(1, -2), 2, 0, "exact"),
        (tensor(0, 0), tensor(0, 0), 1, 0, "exact"),
        (tensor(0), tensor(-0.0), 1, 0, "exact"),
        # rounding: 1e-4 of the scale, wherever in the tensor
        (tensor(1, 1e-5), tensor(1, 1e-5 + 0.99e-4), 1, 0, "rounding"),
        (tensor(1, 1e-5), tensor(1, 1e-5 + 1.01e-4), 1, 0, "different"),
        (tensor(1e-9), tensor(1.00009e-9), 1, 0, "rounding"),
        # zero: both sides within 16 units of roundoff of the largest gradient
        (tensor(3e-7), tensor(-2e-7), 1, 1e-7, "zero"),
        (tensor(3e-7), tensor(0), 1, 0, "zero"),
        (tensor(3e-7), tensor(-2e-7), 0.1, 1e-8, "different"),
        (tensor(17 * U), tensor(0), 1, 0, "different"),
        (tensor(0), tensor(17 * U), 1, 0, "different"),
        (tensor(15 * U), tensor(0), 1, 0, "zero"),
        # a small but genuine gradient, with little noise, must not pass as zero
        (tensor(0, 0), tensor(5e-7, 1e-7), 1, 1e-13, "different"),
        (tensor(5e-7, 1.01e-7), tensor(5e-7, 1e-7), 1, 1e-13, "different"),
        (tensor(5e-7, 1e-7), tensor(5.0001e-7, 1e-7), 1, 1e-13, "rounding"),
        # noise: what TensorFlow itself does not reproduce, up to a factor of 4
        # ... but not where the noise would let a gradient be halved
        (tensor(0.7), tensor(1), 1, 0.1, "undecidable"),
        (tensor(1.07), tensor(1), 1, 0.02, "noise"),
        (tensor(1.09), tensor(1), 1, 0.02, "different"),
        # noise that hides the gradient accepts it only where it does not matter
        (tensor(0), tensor(1), 1, 0.3, "undecidable"),
        (tensor(-0.2), tensor(1), 1, 0.25, "different"),
        (tensor(0), tensor(1e-4), 1, 3e-5, "noise"),
        (tensor(0), tensor(1e-2), 1, 3e-3, "undecidable"),
        # not finite, on either side
        (tensor(np.nan), tensor(1), 1, 0, "not finite"),
        (tensor(np.inf), tensor(np.inf), 1, 0, "not finite"),
        (tensor(1), tensor(1), 1, np.nan, "not finite"),
    ],
)
def test_the_first_rule_that_holds_decides(
    g: npt.NDArray[Any], t: npt.NDArray[Any], largest: float, noise: float, rule: Rule
) -> None:
    found = compare(g, t, largest=largest, noise=noise)
    assert found.rule == rule
    assert found.accepted == (rule in ("exact", "rounding", "zero", "noise"))


HALF = 2.0**-11


@pytest.mark.parametrize(
    ("g", "t", "noise", "coarse", "rule"),
    [
        # the noise of the coarser dtype
        (tensor(1.003, -1), tensor(1, -1.003), 1e-3, Coarse(HALF, 1e-3, 1e-3), "noise"),
        (tensor(1.005, -1), tensor(1, -1.005), 1e-3, Coarse(HALF, 1e-3, 1e-3), "different"),
        # a factor is not hidden by the noise of the elements
        (tensor(1.003, -1.003), tensor(1, -1), 1e-3, Coarse(HALF, 1e-3, 5e-4), "different"),
        # of noise that hides the gradient, the runs that do not hide it count
        (tensor(1.003, -1), tensor(1, -1.003), 0.3, Coarse(HALF, 1e-3, 1e-3), "noise"),
        (tensor(1.005, -1), tensor(1, -1.005), 0.3, Coarse(HALF, 1e-3, 1e-3), "undecidable"),
        (tensor(3, -1), tensor(1, -1), 0.3, Coarse(HALF, 1e-3, 1e-3), "different"),
        (tensor(1.003, -1), tensor(1, -1.003), 0.3, Coarse(HALF, 0.3, 1e-3), "undecidable"),
        # zero but for the rounding of the coarser dtype, beside a gradient of 1; what is genuine is none
        # Whatever the runs show, both sides have rounded their numbers once, by half a thousandth each.
        (tensor(1.0009, -1), tensor(1, -1), 0.0, Coarse(HALF, 0.0, 0.0), "noise"),
        (tensor(1.0011, -1), tensor(1, -1), 0.0, Coarse(HALF, 0.0, 0.0), "different"),
        (tensor(3e-3), tensor(-4e-3), 4e-3, Coarse(HALF, 4e-3, 2), "zero"),
        (tensor(9e-3), tensor(0), 4e-3, Coarse(HALF, 4e-3, 2), "noise"),
        (tensor(5.1e-3), tensor(5e-3), 1e-5, Coarse(HALF, 1e-5, 1), "different"),
        # what agrees to the last bits of its own dtype needs no noise
        (tensor(1.00001), tensor(1), 0, Coarse(HALF, 0, 0), "rounding"),
    ],
)
def test_computed_in_a_coarser_dtype(
    g: npt.NDArray[Any], t: npt.NDArray[Any], noise: float, coarse: Coarse, rule: Rule
) -> None:
    assert compare(g, t, largest=1, noise=noise, coarse=coarse).rule == rule


def test_the_slope() -> None:
    t = tensor(3, -4)
    assert slope(t * 1.5, t) == 1.5
    assert slope(t + tensor(4, 3), t) == 1
    assert slope(t, tensor(0, 0)) == 1


def test_the_numbers_of_the_report() -> None:
    found = compare(tensor(3, 0), tensor(3, 4), largest=8, noise=0.25)
    assert (found.error, found.relative_l2, found.scale, found.noise, found.allowed) == (4, 0.8, 4, 0.25, 1.0)
    assert compare(tensor(1), tensor(0), largest=1).relative_l2 == np.inf
    assert compare(tensor(), tensor(), largest=1).rule == "exact"


@pytest.mark.parametrize(
    ("dtype", "within", "beyond"),
    [(np.float64, 1.8e-13, 2.0e-13), (np.float16, 0.0077, 0.0088), (ml_dtypes.bfloat16, 0.0547, 0.0704)],
)
def test_the_bounds_follow_the_dtype(dtype: type[Any], within: float, beyond: float) -> None:
    one = np.ones(1, dtype)
    assert compare((one.astype(np.float64) + within).astype(dtype), one, largest=1).rule == "rounding"
    assert compare((one.astype(np.float64) + beyond).astype(dtype), one, largest=1).rule == "different"


def test_unit_roundoff() -> None:
    expected: list[tuple[Any, float]] = [
        (np.float32, 2**-24), (np.float64, 2**-53), (np.float16, 2**-11), (ml_dtypes.bfloat16, 2**-8)
    ]  # fmt: skip
    for dtype, unit in expected:
        assert unit_roundoff(np.dtype(dtype)) == unit


def test_sums_in_different_orders_agree_and_wrong_ones_do_not() -> None:
    """What the rule is for: a float32 matrix product in two orders, and with a term missing."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(8, 4096)).astype(np.float32), random.normal(size=(4096, 8)).astype(np.float32)
    t = a @ b
    largest = float(np.abs(t).max())
    backwards = np.zeros_like(t)
    for i in reversed(range(4096)):
        backwards += np.outer(a[:, i], b[i])
    assert compare(backwards, t, largest=largest).rule == "rounding"
    assert compare(a[:, 1:] @ b[1:], t, largest=largest).rule == "different"


def test_a_sum_that_cancels_passes_as_zero_and_a_missing_term_does_not() -> None:
    random = np.random.default_rng(1)
    terms = random.normal(size=(1024, 16)).astype(np.float32)
    centred = terms - terms.mean(axis=0, dtype=np.float64).astype(np.float32)
    neighbour = float(np.abs(centred.T @ terms).max())
    t = centred.sum(axis=0)
    noise = float(np.abs(np.nextafter(centred, np.float32(9)).sum(axis=0) - t).max())
    other_order = centred[::-1].reshape(32, 32, 16).sum(axis=0).sum(axis=0)
    assert compare(other_order, t, largest=neighbour, noise=noise).rule in ("zero", "noise")
    assert not compare(centred[1:].sum(axis=0), t, largest=neighbour, noise=noise).accepted
