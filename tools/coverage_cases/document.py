"""docs/coverage.md: a table for each group; rows of cases that were not run now are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tools.coverage_cases.case import Case
from tools.coverage_cases.measure import Measurement

__all__ = ["read_rows", "row_of", "write_document"]

_INTRODUCTION = """# Coverage

What converts, and how close it comes to TensorFlow. `tools/coverage` writes this page: each model is exported by
`graphfreeze export`, its training endpoint is traced with a loss and an optimizer, lowered, written and run on
onnxruntime (CPU, float32) on one random batch. Layers, activations and losses sit behind a Dense layer, so that a
gradient has to pass through them. Models of Keras 2 are saved by tf_keras and train in its training mode, modules are
saved by TensorFlow; there, noise without a seed is drawn by the step's own in TensorFlow too.

- operations: of TensorFlow in the training step; nodes: of train_step.onnx; both with the bodies of loops.
- loss: its relative error. gradient: the largest relative error of a gradient in the Euclidean norm, without
  gradients that are zero but for rounding. noise: by how much that gradient moves in TensorFlow itself, relative to its
  largest element, when parameters and inputs move by one unit in the last place.
- seconds: for tracing and lowering, on a busy machine with two cores.
- outcome: `agrees` means that loss, gradients, new statistics and seeds, predictions and, for optimizers, three single
  steps are TensorFlow's by the rules of [verification](verification.md). `agrees in float64`: in float32 more differs
  than these rules allow, since batch normalization over a few pixels and values on the edge of a ReLU amplify rounding;
  the comparison in float64 that `rewrite --checks full` makes shows that the graphs compute the same. `undecided`: what
  differs moves in TensorFlow itself by more than a thousandth when the last bit of an input changes, and float64 does
  not decide either. `refused` gives the whole refusal.
"""
_HEADER = "| {} | operations | nodes | loss | gradient | noise | seconds | outcome |"
_RULE = "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"


def row_of(found: Measurement) -> str:
    """The line of one case."""
    cells = [
        f"`{found.case.name}`",
        _integer(found.operations),
        _integer(found.nodes),
        _error(found.loss_error),
        _error(found.gradient_error),
        _error(found.noise),
        "" if found.seconds is None else f"{found.seconds:.1f}",
        found.outcome + (f": {_one_line(found.detail)}" if found.detail else ""),
    ]
    return f"| {' | '.join(cells)} |"


def read_rows(path: Path) -> dict[str, str]:
    """The lines that are there, by `group/name`."""
    rows: dict[str, str] = {}
    group = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        if line.startswith("## "):
            group = line[3:].partition(" (")[0].lower()
        elif line.startswith("| `"):
            rows[f"{group}/{line.split('`')[1]}"] = line
    return rows


def write_document(
    path: Path, cases: Sequence[Case], rows: dict[str, str], left_out: Iterable[tuple[str, str]]
) -> None:
    """Write the page with these lines, in the order of the cases.

    Args:
        path: The page.
        cases: All cases, run now or not.
        rows: The lines by `group/name`.
        left_out: What has no case, and why.
    """
    lines = [_INTRODUCTION, f"With TensorFlow {tf.__version__} and Keras {keras.__version__}.", ""]
    for group in dict.fromkeys(case.group for case in cases):
        there = [rows[case.key] for case in cases if case.group == group and case.key in rows]
        if not there:
            continue
        agreeing = sum(1 for row in there if row.endswith(("| agrees |", "| agrees in float64 |")))
        lines += [f"## {group.capitalize()} ({agreeing} of {len(there)} agree)", "", _HEADER.format("case"), _RULE]
        lines += [*there, ""]
    lines += ["## Left out", "", *(f"- {what}: {why}" for what, why in left_out)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _integer(number: int | None) -> str:
    return "" if number is None else str(number)


def _error(number: float | None) -> str:
    return "" if number is None else ("0" if number == 0 else f"{number:.1e}")


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
