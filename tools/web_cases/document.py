"""docs/web.md: a line for each model on each backend; lines of models that were not run now are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tools.web_cases.cases import CASES
from tools.web_cases.comparison import Finding

__all__ = ["line_of", "read_lines", "write_document"]

_INTRODUCTION = """# Training in Node and in a browser

Written by `tools/web`. It trains artifacts with the programs of
[artifact.md](artifact.md#training-in-a-browser-or-in-node), as they stand there, and compares with `Trainer` on the
CPU.

- Backends: `node`: onnxruntime-node. `node-wasm`: onnxruntime-web in Node. `chromium-wasm` and `chromium-webgpu`:
  onnxruntime-web in Chromium without a window, with that execution provider. `node-documented` and
  `chromium-documented`: `train_in_node.mjs` and `train.html` to the letter, three steps on the reference batch.
- loss: the largest relative difference of the loss of a step. state: the largest relative difference of what all steps
  together changed a state by, in the Euclidean norm, without states that are zero but for rounding.
- Agreement is judged by the rules of [validation](artifact.md#validation): for losses, and for that change of each
  floating-point state. The noise is by how much the same number differs when `Trainer` begins one unit in the last
  place beside the initial weights, of the dtype that is computed in. Integer states
  have to be equal. rules: how many states each rule accepted.
- frozen: so many frozen elements have the bits of the plan, in the state that the program wrote and `Trainer` read.
- ms: the time of the fastest step, and that of `Trainer` on the same machine, which others use too. Each has the number
  of threads that it takes by itself: on this machine of two cores, onnxruntime-web takes one. In brackets: the GPU.
  Where that is `swiftshader`, in software, its time says nothing of a real one.
"""
_HEADER = (
    "| model | backend | loss | state | rules | frozen | ms | Trainer | outcome |",
    "| --- | --- | ---: | ---: | --- | ---: | ---: | ---: | --- |",
)


def read_lines(page: Path) -> dict[tuple[str, str], str]:
    """The lines that are there, by model and backend."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    cells = {line: line.split("`") for line in lines if line.startswith("| `")}
    return {(parts[1], parts[3]): line for line, parts in cells.items() if len(parts) > 3}


def write_document(
    page: Path,
    lines: Mapping[tuple[str, str], str],
    findings: Sequence[Finding],
    *,
    steps: int,
    backends: Sequence[str],
    versions: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        page: Where to.
        lines: Those of before.
        findings: Those of now.
        steps: How many were trained.
        backends: The names of all backends, in their order.
        versions: Of what was run, by name.
    """
    merged = {**lines, **{(found.model, found.backend): line_of(found) for found in findings}}
    rows = [merged[model, backend] for model in CASES for backend in backends if (model, backend) in merged]
    counts = Counter(row.rpartition(" | ")[2].split()[0].rstrip(":") for row in rows)
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    today = datetime.now(UTC).date().isoformat()
    made = f"Last run {today}, {steps} steps each, with {named}."
    summary = f"Outcomes of {len(rows)} runs: " + ", ".join(f"{word} {n}" for word, n in sorted(counts.items())) + "."
    models = [f"- `{case.name}`: {case.title}." for case in CASES.values()]
    sections = [_INTRODUCTION, made, summary, "", *models, "", *_HEADER, *rows, ""]
    page.write_text("\n".join(sections), encoding="utf-8")


def line_of(found: Finding) -> str:
    """The row of a finding."""
    # onnxruntime's messages begin with where it was built.
    detail = re.sub(r"(?<!\S)/\S*/", "", " ".join(found.detail.replace("|", "\\|").split()))
    cells = [
        f"`{found.model}`",
        f"`{found.backend}`",
        _scientific(found.loss_error),
        _scientific(found.state_error),
        ", ".join(f"{count} {rule}" for rule, count in found.rules.items()),
        "" if found.frozen is None else f"{found.frozen:,}",
        "" if found.milliseconds is None else f"{found.milliseconds:.2f}",
        "" if found.trainer_milliseconds is None else f"{found.trainer_milliseconds:.2f}",
        found.outcome + (f": {detail}" if detail else f" ({found.adapter})" if found.adapter else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _scientific(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}"
