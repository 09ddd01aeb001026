"""docs/operators.md says what the table of rules says."""

from __future__ import annotations

from pathlib import Path

import graphfreeze
from graphfreeze.lowering.operators_document import PATH, operators_document
from graphfreeze.lowering.rule import RULES

ROOT = Path(graphfreeze.__file__).parent.parent


def test_the_document_is_up_to_date() -> None:
    assert (ROOT / PATH).read_text(encoding="utf-8") == operators_document(), f"{PATH} is stale: run tools/operators"


def test_every_rule_says_what_it_computes() -> None:
    assert not [rule.operation for rule in RULES.values() if not rule.description.endswith(".")]


def test_every_operation_is_listed_once() -> None:
    text = operators_document()
    for operation in RULES:
        assert text.count(f"| `{operation}` |") == 1, operation
