"""The artifact's loss and gradients against TensorFlow's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphfreeze.artifact.frozen import FrozenElements
from graphfreeze.artifact.manifest import Manifest
from graphfreeze.validation.check import Check, conclude
from graphfreeze.validation.tolerance import Coarse, Comparison, compare, scale_of

__all__ = ["GradientEvidence", "check_frozen_gradients", "check_gradients", "check_outputs", "compare_gradients"]

Tensors = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class GradientEvidence:
    """What was found about one parameter's gradient.

    Attributes:
        name: The parameter.
        comparison: With TensorFlow's gradient.
        frozen_elements: How many elements are frozen.
        frozen_not_zero: How many of them have a gradient that is not zero.
        largest_frozen: The largest gradient among them.
    """

    name: str
    comparison: Comparison
    frozen_elements: int
    frozen_not_zero: int
    largest_frozen: float

    def record(self) -> dict[str, Any]:
        """The evidence as one flat record."""
        found = self.comparison
        return {
            "name": self.name,
            "passed": found.accepted and not self.frozen_not_zero,
            "rule": found.rule,
            "error": found.error,
            "relative_l2": found.relative_l2,
            "allowed": found.allowed,
            "scale": found.scale,
            "noise": found.noise,
            "frozen_elements": self.frozen_elements,
            "frozen_not_zero": self.frozen_not_zero,
        }


def compare_gradients(
    manifest: Manifest, frozen: FrozenElements, outputs: Tensors, reference: Tensors
) -> list[GradientEvidence]:
    """Compare every gradient, in the stored layout; what has no gradient because it is frozen counts as zero.

    Args:
        manifest: The artifact's manifest.
        frozen: Its frozen elements.
        outputs: The outputs of `gradients`.
        reference: TensorFlow's gradients and their noise.
    """
    names = [entry.name for entry in manifest.trainable_parameters]
    largest = max((scale_of(reference[f"gradient/{name}"]) for name in names), default=0.0)
    evidence = []
    for name in names:
        part = frozen.partly.get(name)
        gradient = outputs[f"gradient/{name}"] if part is None else part.whole_gradient(outputs[f"gradient/{name}"])
        comparison = compare(
            gradient,
            reference[f"gradient/{name}"],
            largest=largest,
            noise=float(reference[f"noise/{name}"]),
            coarse=_coarse(reference, name),
        )
        # A scalar has no slice without elements.
        at_frozen = gradient.reshape(-1)[:0] if part is None else gradient[part.frozen]
        # Counted as "not equal to zero", so that NaN counts too.
        not_zero = int(np.count_nonzero(~(at_frozen == 0)))
        evidence.append(GradientEvidence(name, comparison, at_frozen.size, not_zero, scale_of(at_frozen)))
    return evidence


def check_gradients(evidence: Sequence[GradientEvidence]) -> Check:
    """Every gradient is TensorFlow's up to rounding."""
    problems = [_difference(item.name, item.comparison) for item in evidence if not item.comparison.accepted]
    rules = [item.comparison.rule for item in evidence]
    counts = ", ".join(f"{rules.count(rule)} by the rule {rule!r}" for rule in dict.fromkeys(rules))
    return conclude("gradients equal TensorFlow's", problems, f"{len(evidence)} gradients accepted: {counts}")


def check_frozen_gradients(evidence: Sequence[GradientEvidence]) -> Check:
    """Every frozen element has a gradient of exactly zero."""
    problems = [
        f"{item.name}: {item.frozen_not_zero} of {item.frozen_elements} frozen elements have a gradient, "
        f"up to {item.largest_frozen:.3g}"
        for item in evidence
        if item.frozen_not_zero
    ]
    total = sum(item.frozen_elements for item in evidence)
    return conclude("gradients of frozen elements are exactly zero", problems, f"{total} frozen elements")


def check_outputs(name: str, outputs: Tensors, reference: Tensors, keys: Sequence[str]) -> Check:
    """Tensors such as the loss are TensorFlow's up to rounding, each by its own scale."""
    problems = []
    for key in keys:
        noise = float(reference[f"noise/{key}"]) if f"noise/{key}" in reference else 0.0
        comparison = compare(outputs[key], reference[key], largest=scale_of(reference[key]), noise=noise)
        if not comparison.accepted:
            problems.append(_difference(key, comparison))
    return conclude(name, problems, ", ".join(_found(key, outputs[key]) for key in keys))


def _coarse(reference: Tensors, name: str) -> Coarse | None:
    """What the reference says of a gradient that is computed in a coarser dtype than its own."""
    if f"roundoff/{name}" not in reference:
        return None
    roundoff, noise, slope = (float(reference[f"{kind}/{name}"]) for kind in ("roundoff", "calm_noise", "slope_noise"))
    return Coarse(roundoff, noise, slope)


def _difference(name: str, found: Comparison) -> str:
    if found.rule == "not finite":
        return f"{name} is not finite"
    if found.rule == "undecidable":
        return (
            f"{name} cannot be judged: TensorFlow's own rounding noise of {found.noise:.3g} hides it "
            f"(scale {found.scale:.3g}, error {found.error:.3g}). Rewrite with a larger batch in --data"
        )
    return (
        f"{name} differs by {found.error:.3g} where {found.allowed:.3g} is allowed "
        f"(scale {found.scale:.3g}, relative error {found.relative_l2:.3g})"
    )


def _found(key: str, value: npt.NDArray[Any]) -> str:
    return f"{key} {float(value):.6g}" if value.size == 1 else key
