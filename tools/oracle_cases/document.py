"""docs/oracle.md: a line for each case; lines of cases that were not run now are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tools.oracle_cases.comparison import Finding

__all__ = ["read_lines", "write_document"]

_INTRODUCTION = """# An independent oracle

The gradients of a training step are TensorFlow's: `tools/oracle` compares them with gradients that have nothing to do
with TensorFlow. onnxruntime-training derives them by itself, from `forward.onnx` of the artifact (the model in training
mode, with its weights inside) and a loss of its own, on the reference batch. It is installed into an environment of its
own; the product does not need it.

- tensors: the gradients that were compared; zero: how many of these are zero but for rounding, by the rules of
  [validation](artifact.md#validation), by which agreement is judged too.
- loss: the relative difference of the losses. gradient: the largest relative difference between its gradient and ours,
  in the Euclidean norm; TensorFlow: between its gradient and that of TensorFlow's tape.
- Where gradients differ, finite differences of the loss along the difference decide who is right; in models, where
  batch normalization amplifies rounding, TensorFlow's gradients in float64.
- It has no gradient for many operators of ONNX, and its losses are the mean squared error and the cross entropy. What
  it refuses is listed below with its reason. [Finite differences](finite-differences.md) are a second such check, which
  needs no gradient of any operator, and covers these and all losses.

As found on 2026-11-29: where it differs, the gradients here are right. Its own of AveragePool in three dimensions
is wrong. In ResNet50 and MobileNetV2, in training mode on 8 images, batch normalization amplifies rounding: both sides
are about as far from float64 as from each other.
"""
_LONGEST = 160
_HEADER = (
    "| case | tensors | zero | loss | gradient | TensorFlow | outcome |",
    "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
)


def read_lines(page: Path) -> dict[str, str]:
    """The lines that are there, by the names of the cases."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def write_document(page: Path, order: Sequence[str], lines: Mapping[str, str], findings: Sequence[Finding]) -> None:
    """Write the page.

    Args:
        page: Where to.
        order: The names of all cases.
        lines: Those of before.
        findings: Those of now.
    """
    merged = {**lines, **{finding.name: _line(finding) for finding in findings}}
    compared = [merged[name] for name in order if name in merged and merged[name].count(" | ") > 2]
    refused = [merged[name] for name in order if name in merged and merged[name].count(" | ") <= 2]
    agreeing = sum(line.endswith("| agrees |") for line in compared)
    today = datetime.now(UTC).date().isoformat()
    made = f"Last run {today}, with onnxruntime-training 1.19.2: {agreeing} of {len(compared)} agree."
    sections = [_INTRODUCTION, made, "", *_HEADER, *compared]
    sections += ["", f"## Without an oracle ({len(refused)})", "", "| case | why |", "| --- | --- |", *refused, ""]
    page.write_text("\n".join(sections), encoding="utf-8")


def _line(found: Finding) -> str:
    detail = " ".join(found.detail.replace("|", "\\|").split())
    if found.outcome == "no oracle":
        # Its errors begin with where in its sources they are raised, and end with the reason.
        return f"| `{found.name}` | {detail if len(detail) <= _LONGEST else '... ' + detail[-_LONGEST:]} |"
    numbers = [found.loss_error, found.gradient_error, found.tensorflow_error]
    cells = [f"`{found.name}`", str(found.tensors), str(found.zeros), *(_error(number) for number in numbers)]
    return f"| {' | '.join([*cells, found.outcome + (f': {detail}' if detail else '')])} |"


def _error(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}" if number else "0"
