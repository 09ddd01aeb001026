"""docs/finite-differences.md: a line for each case; lines of cases that were not run now are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from tools.finite_difference_cases.finding import NOT_AVAILABLE, Finding

__all__ = ["line_of", "read_lines", "write_document"]

_INTRODUCTION = """# Finite differences
"""
_HEADER = (
    "| case | parameters | zero | directions | left out | loss | gradient | estimate | outcome |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
)
_LIBRARIES = ("tensorflow", "keras", "onnxruntime", "numpy")


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
    counts = {o: sum(_outcome(line) == o for line in compared) for o in ("agrees", "undecided", "differs")}
    versions = ", ".join(f"{library} {metadata.version(library)}" for library in _LIBRARIES)
    made = (
        f"Last run {datetime.now(UTC).date().isoformat()}, with {versions}: of {len(compared)} cases "
        f"{counts['agrees']} agree, {counts['undecided']} are undecided, {counts['differs']} differ."
    )
    sections = [_INTRODUCTION, made, "", *_HEADER, *compared]
    sections += ["", f"## Not available ({len(refused)})", "", "| case | why |", "| --- | --- |", *refused, ""]
    page.write_text("\n".join(sections), encoding="utf-8")


def _outcome(line: str) -> str:
    return line.rpartition(" | ")[2].removesuffix(" |").partition(":")[0]


def _error(number: float | None) -> str:
    return "" if number is None else f"{number:.1e}" if number else "0"
