"""Writes docs/operators.md: the TensorFlow operations that can be lowered, from the table of rules."""

from __future__ import annotations

import importlib
from collections import defaultdict
from pathlib import Path

import graphfreeze.lowering.rules  # noqa: F401 - fills the table of rules
from graphfreeze.lowering.rule import RULES, Rule
from graphfreeze.training.variable_uses import VARIABLE_USES

__all__ = ["PATH", "operators_document"]

PATH = Path("docs") / "operators.md"
"""Where the document lies in the repository."""

_INTRODUCTION = """\
# Operators

The TensorFlow operations of a training step that become ONNX operators of the default domain, opset 18.
`tools/operators` writes this page from the rules in `graphfreeze/lowering/rules/`, one file for each section below.

Any operation, listed here or not, may occur where nothing of it is left to run time: where all its inputs are known
when the graph is lowered, as those on shapes are, or where nothing of the training step needs its outputs. Shapes may
follow the batch size and the length of sequences. Function calls (`PartitionedCall`, `StatefulPartitionedCall`) are
inlined. A rule may refuse a case that it does not cover; the error then says which, and what is covered.
"""


def operators_document() -> str:
    """The text of the document."""
    families: dict[str, list[Rule]] = defaultdict(list)
    for rule in RULES.values():
        families[rule.family].append(rule)
    sections = [_section(family, rules) for family, rules in sorted(families.items())]
    return "\n".join([_INTRODUCTION, *sections, _variables()])


def _section(family: str, rules: list[Rule]) -> str:
    module = importlib.import_module(f"graphfreeze.lowering.rules.{family}")
    summary = " ".join((module.__doc__ or "").strip().split("\n\n")[0].split())
    rows = [f"| `{rule.operation}` | {_cell(rule.description)} |" for rule in sorted(rules, key=lambda r: r.operation)]
    title = family.replace("_", " ").capitalize()
    return "\n".join([f"## {title}", "", summary, "", "| operation | computes |", "| --- | --- |", *rows, ""])


def _variables() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(VARIABLE_USES))
    return f"## Variables\n\nReads become inputs of the step, assignments its outputs: {names}.\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
