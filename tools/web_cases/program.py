"""The programs of docs/artifact.md: what is checked is what is documented, so there is no other copy of them."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["documented_programs", "write_programs"]

_DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "artifact.md"
_PROGRAM = re.compile(r"^```(?:js|html)\n(?P<text>(?://|<!--) (?P<name>[\w.]+).*?)^```$", re.MULTILINE | re.DOTALL)


def documented_programs() -> dict[str, str]:
    """The blocks of JavaScript and HTML that begin with a comment with their name, by that name."""
    text = _DOCUMENT.read_text(encoding="utf-8")
    return {match["name"]: match["text"] for match in _PROGRAM.finditer(text)}


def write_programs(directory: Path) -> None:
    """Write them as files."""
    for name, text in documented_programs().items():
        (directory / name).write_text(text, encoding="utf-8")
