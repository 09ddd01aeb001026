"""Slopes, verdicts and the page of `tools/finite_differences`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from graphfreeze.training.functionalise import functionalise
from tools.finite_difference_cases.cases import finite_difference_cases
from tools.finite_difference_cases.comparison import Direction, Measured, Verdict, judge
from tools.finite_difference_cases.directions import draw_directions
from tools.finite_difference_cases.document import line_of, read_lines, write_document
from tools.finite_difference_cases.exact_loss import ExactLoss
from tools.finite_difference_cases.examine import Examined
from tools.finite_difference_cases.finding import Finding, sum_up
from tools.finite_difference_cases.slope import Slope, find_slope

# -- slopes


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda t: np.exp(2 * t), 2.0),
        (lambda t: 7.0 + 3.0 * t, 3.0),
        # Strongly curved: the first steps are too large.
        (lambda t: np.sin(3e3 * t), 3e3),
        # A kink, and a jump, that the smaller steps leave outside.
        (lambda t: t + 5 * max(t - 2e-5, 0.0), 1.0),
        (lambda t: t + float(t > 3e-4), 1.0),
    ],
)
def test_slopes_are_found_within_their_estimated_error(function: Callable[[float], float], slope: float) -> None:
    found = find_slope(function, function(0.0))
    assert abs(found.value - slope) <= found.error <= 1e-6 * slope


@pytest.mark.parametrize(
    "function", [abs, lambda t: t + 0.1 * max(t, 0.0), lambda t: float(t > 0), lambda t: max(t - 1e-12, 0.0)]
)
def test_a_kink_or_jump_at_the_point_itself_is_noticed(function: Callable[[float], float]) -> None:
    assert find_slope(function, function(0.0)).error > 0.05


def test_all_steps_with_a_kink_within_are_bad() -> None:
    def error_with_kink_at(place: float) -> tuple[float, float]:
        found = find_slope(lambda t: max(t - place, 0.0), 0.0)
        return abs(found.value), found.error

    for place in np.geomspace(1e-9, 1e-2, 200):
        true_error, estimate = error_with_kink_at(float(place))
        assert true_error <= estimate


# -- directions


def test_small_parameters_are_moved_in_each_trained_element() -> None:
    mask = np.array([[True], [False], [True]])
    found = list(islice(draw_directions((3, 2), mask, np.random.default_rng(0)), 6))
    np.testing.assert_array_equal(sum(found[:4]), np.broadcast_to(mask, (3, 2)))
    assert all(np.linalg.norm(d) == pytest.approx(1) and not d[1].any() for d in found)


# -- verdicts


def judged(directions: list[Direction], *others: Direction, largest: float = 2.0, **known: Any) -> Verdict:
    more: Iterator[Direction] = iter(others)
    return judge(Measured("w", len(directions), more, directions, **known), largest)


def direction(slope: float, ours: float, error: float = 1e-9, noise: float = 0.0) -> Direction:
    return Direction(Slope(slope, error, 1e-3), ours, noise)


def test_rounding_agrees_and_more_differs() -> None:
    fine = judged([direction(1, 1.00001), direction(-2, -2)])
    assert (fine.outcome, fine.rule, fine.directions, fine.left_out) == ("agrees", "rounding", 2, 0)
    assert fine.error == pytest.approx(1e-5 / np.sqrt(5), rel=1e-3)
    wrong = judged([direction(1, 1.001), direction(-2, -2)])
    assert (wrong.outcome, wrong.rule) == ("differs", "different")


def test_directions_with_kinks_are_replaced() -> None:
    found = judged([direction(1, 1.5, error=0.6), direction(2, 2)], direction(1.5, 1.5))
    assert (found.outcome, found.directions, found.left_out) == ("agrees", 2, 1)


def test_nothing_but_kinks_is_undecided() -> None:
    kink = direction(1, 1.5, error=0.6)
    found = judged([kink], kink, kink)
    assert (found.outcome, found.directions, found.left_out) == ("undecided", 0, 3)


def test_an_error_of_the_finite_differences_is_nobodys_fault() -> None:
    # Allowed are 1e-4 of the scale: between this and what the differences are sure of lies their own error.
    assert judged([direction(1, 1 + 1.1e-4, error=2e-5)]).outcome == "undecided"
    assert judged([direction(1, 1 + 1.3e-4, error=2e-5)]).outcome == "differs"


@pytest.mark.parametrize("ours", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_differs(ours: float) -> None:
    one = direction(1, ours)
    assert judged([one], one, one).outcome == "differs"


def test_a_loss_that_is_not_finite_decides_nothing() -> None:
    one = direction(np.nan, 1, error=np.nan)
    assert judged([one], one, one).outcome == "undecided"


def test_a_gradient_that_is_all_noise_is_undecided() -> None:
    assert judged([direction(1, 1.5, noise=1.0)]).outcome == "undecided"


def test_noise_and_zeros_are_told_from_errors() -> None:
    assert judged([direction(1, 1.001, noise=1e-3)]).rule == "noise"
    assert judged([direction(1e-12, 1e-9, error=1e-13)]).rule == "zero"


def test_frozen_elements_with_a_gradient_differ() -> None:
    assert judged([direction(1, 1)], frozen=2, frozen_not_zero=1).outcome == "differs"


# -- what TensorFlow has no float64 form of


@pytest.mark.parametrize(
    "function",
    [
        lambda v: tf.nn.max_pool3d(v, 3, 2, "SAME"),
        lambda v: tf.nn.avg_pool3d(v, (1, 2, 3), (1, 2, 1), "SAME"),
        lambda v: tf.nn.avg_pool3d(v, 2, 1, "VALID"),
        lambda v: tf.image.resize(v[0], (3, 7)),
        lambda v: tf.image.resize(v[0], (7, 3), "bicubic"),
        lambda v: tf.image.resize(v[0], (3, 3), "area"),
        lambda v: tf.image.resize(v[0], (7, 3), "lanczos3", antialias=True),
        lambda v: tf.nn.max_pool2d(tf.transpose(v[0], (0, 3, 1, 2)), 2, 1, "VALID", "NCHW"),
    ],
)
def test_composed_operations_are_tensorflows(function: Callable[[Any], Any]) -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 3)).astype(np.float32)

    def loss(v: Any) -> Any:
        result = function(v)
        return [tf.reduce_sum(result * tf.sin(tf.reshape(tf.range(tf.size(result), dtype=tf.float32), result.shape)))]

    concrete = tf.function(loss, autograph=False).get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    exact = ExactLoss(functionalise(concrete, ["x"], ["loss"], {}), {"x": x}, ["x"])
    assert exact.value == pytest.approx(float(loss(x)[0]), rel=1e-5, abs=1e-5)


# -- the page


def test_findings_are_summed_up() -> None:
    good = Verdict("a", "agrees", "rounding", 4, 1, 1e-7, 1e-9)
    zero = Verdict("b", "agrees", "zero", 2, 0, 300.0, 9.0)
    bad = Verdict("c", "differs", "different", 3, 0, 0.5, 1e-9)
    found = sum_up("x/y", Examined(1e-8, [good, zero], 0))
    assert line_of(found) == "| `x/y` | 2 | 1 | 6 | 1 | 1.0e-08 | 1.0e-07 | 1.0e-09 | agrees |"
    line = line_of(sum_up("x/y", Examined(1e-8, [good, bad], 0)))
    assert line.endswith("| differs: c (different) by 5.0e-01, estimate 1.0e-09 |")
    assert sum_up("quantised/Dense int8", Examined(1e-8, [good, bad], 0)).outcome == "no derivative"
    assert sum_up("quantised/Dense int8", Examined(1e-8, [good], 0)).outcome == "agrees"


def test_the_page_keeps_what_was_not_run_now(tmp_path: Path) -> None:
    page, order = tmp_path / "page.md", ["a", "b", "c"]
    write_document(page, order, {"b": line_of(Finding("b", detail="no\nkernel | there"))})
    write_document(page, order, read_lines(page) | {"a": line_of(Finding("a", "agrees", parameters=2))})
    text = page.read_text(encoding="utf-8")
    assert "of 1 cases 1 agree, 0 are undecided, 0 have gradients that are no derivatives, 0 differ" in text
    assert "| `b` | no kernel \\| there |" in text


def test_every_case_has_a_name_of_its_own() -> None:
    keys = [case.key for case in finite_difference_cases()]
    assert len(keys) == len(set(keys))
