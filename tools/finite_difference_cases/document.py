"""docs/finite-differences.md: a line for each case; lines of cases that were not run now are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import tensorflow as tf

from tools.finite_difference_cases.finding import NOT_AVAILABLE, Finding

__all__ = ["line_of", "read_lines", "write_document"]

_INTRODUCTION = """# Finite differences

The gradients of a training step are TensorFlow's. `tools/finite_differences` compares them with slopes of the loss that
no one differentiated: it moves the parameters, and looks at what the loss does. Neither TensorFlow's tape nor the way
gradients are lowered has any part in these.

What is compared, for each trained parameter of a case:

- **Ours**: the graph `gradients` of an artifact, run by onnxruntime on the CPU in float32, on one random batch.
- **Finite differences**: the loss of the traced step alone, computed in float64 by TensorFlow's own operations one by
  one, without any of the operations of the gradients. Seeds and statistics are inputs, and the same in each evaluation:
  so are dropout masks. Batch normalization is in training mode, its statistics those of the batch. Random numbers are
  those of float32.
- **Where**: not at the initial values, but at a point nearby, each element moved by a tenth of the parameter's size or
  so (normal numbers). Biases of 0 and scales of 1 would hide wrong terms, and lie on kinks.
- **Directions**: each element of a parameter of at most 8; otherwise 4 random directions over all of its elements (3 in
  the group `models`, 1 in `inference mode`). A gradient of which one element in 10,000 is wrong by its whole size is
  off by about a hundredth along such a direction.
- **Steps**: central differences with h, h/2 and h/4 and Richardson's extrapolation, h being 1e-3 of the parameter's
  size. The error is estimated by how much the last extrapolation changes, by rounding, and by the difference of the
  slopes ahead and behind.
- **Kinks** (ReLU, max pooling, absolute values) have no tolerance of their own. Where one lies within a step, the
  differences do not converge, and the estimate is large: then h becomes 1e-4, and so on to 1e-7, until the kink is
  outside. Where one lies at the point itself, the slopes ahead and behind differ for every h, and the estimate stays
  large. A direction of which the estimate is more than a quarter of what is allowed is left out, and up to twice as
  many others are tried instead.

Agreement is judged by the rules of [validation](artifact.md#validation) for float32, for the vector of slopes along the
directions. The noise is by how much our gradients move along them when parameters and inputs move by one unit in the
last place.

Two things are taken over from what TensorFlow means by a gradient, or these would be slopes of something else: what
passes a StopGradient keeps its value while parameters move, and so does what the step assigns to a parameter before it
reads it (SpectralNormalization alone does), but for the move itself. In float64, TensorFlow has no pooling in three
dimensions, no resizing and no channels-first images on the CPU: these are composed of what it has.

How to read the table:

- parameters: how many were compared; zero: for how many of these the gradient is zero but for rounding (a bias before
  batch normalization); they are judged, but have no relative error.
- directions: how many were compared; left out: how many were not, for kinks, or since the loss changes by less than
  its rounding.
- loss: the relative difference of our loss in float32 and the one that is differentiated.
- gradient: the largest relative difference of a parameter's slopes, in the Euclidean norm over the directions, which
  estimates that of the gradient itself. The rounding of float32 is 6e-08.
- estimate: the largest estimated error of the finite differences themselves, in the same measure.
- outcome: `agrees`; `differs`; `undecided` where every direction was left out, or the difference is within what is
  allowed and the estimate together; `no derivative` where it differs since Keras defines the gradient to be another:
  its int8 layers round what enters them, so that the loss is a staircase in the layers before, and pass the gradient
  straight through. What comes after the rounding agrees there too.

As found on 2026-11-29: most gradients are within a few roundings of float32. Two cases have more than 1e-4, which the
noise of our own gradients accepts. One is STFTSpectrogram's real part, for a parameter of a single number, whose
gradient is a three-thousandth of its neighbour's. The other is MobileNetV2 in inference mode, for 10 of its 158
parameters, along one direction each. Its batch normalization has the statistics of random images: with those of a new
model, signals die out on their way, and the slopes of the first layers are smaller than the rounding of the loss; 108
of the 158 were undecided then, and none differed.

Optimizers have no gradients of their own. Mixed precision is left out: its gradients are rounded to sixteen bits on
their way, which the loss in float64 is not.
"""
_HEADER = (
    "| case | parameters | zero | directions | left out | loss | gradient | estimate | outcome |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
)
_VERSIONS = {"TensorFlow": tf, "Keras": keras, "onnxruntime": onnxruntime, "NumPy": np}


def line_of(found: Finding) -> str:
    """The line of one case."""
    detail = " ".join(found.detail.replace("|", "\\|").split())
    if found.outcome == NOT_AVAILABLE:
        return f"| `{found.name}` | {detail} |"
    counts = [found.parameters, found.zeros, found.directions, found.left_out]
    errors = [found.loss_error, found.gradient_error, found.estimate]
    cells = [f"`{found.name}`", *map(str, counts), *map(_error, errors)]
    return f"| {' | '.join([*cells, found.outcome + (f': {detail}' if detail else '')])} |"


def read_lines(page: Path) -> dict[str, str]:
    """The lines that are there, by the names of the cases."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def write_document(page: Path, order: Sequence[str], lines: Mapping[str, str]) -> None:
    """Write the page.

    Args:
        page: Where to.
        order: The names of all cases.
        lines: The lines by the names of the cases.
    """
    there = [lines[name] for name in order if name in lines]
    compared = [line for line in there if line.count(" | ") > 2]
    refused = [line for line in there if line.count(" | ") <= 2]
    counts = Counter(map(_outcome, compared))
    versions = ", ".join(f"{name} {library.__version__}" for name, library in _VERSIONS.items())
    made = (
        f"Last run {datetime.now(UTC).date().isoformat()}, with {versions}: of {len(compared)} cases "
        f"{counts['agrees']} agree, {counts['undecided']} are undecided, {counts['no derivative']} have gradients that "
        f"are no derivatives, {counts['differs']} differ."
    )
    sections = [_INTRODUCTION, made, "", *_HEADER, *compared]
    sections += ["", f"## Not available ({len(refused)})", "", "| case | why |", "| --- | --- |", *refused, ""]
    page.write_text("\n".join(sections), encoding="utf-8")


def _outcome(line: str) -> str:
    return line.rpartition(" | ")[2].removesuffix(" |").partition(":")[0]


def _error(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}" if number else "0"
