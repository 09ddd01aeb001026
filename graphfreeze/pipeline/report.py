"""The parts of report.json that stages share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphfreeze.errors import CheckFailedError
from graphfreeze.selection import FreezePlan

__all__ = ["SCHEMA_VERSION", "Report", "describe_plan", "in_report"]

SCHEMA_VERSION = 1

Report = dict[str, Any]


def describe_plan(plan: FreezePlan) -> list[Report]:
    """Each targeted variable with how much of it is frozen, and what that guarantees."""
    guarantees = {
        "blend": "no finite step moves a frozen element",
        "select": "no step moves a frozen element",
    }
    return [
        {
            "name": v.variable.name,
            "object_path": v.variable.object_path,
            "shape": list(v.variable.shape),
            "dtype": v.variable.dtype,
            "elements": v.elements,
            "frozen_elements": v.frozen_elements,
            "form": v.form,
            "guarantee": guarantees[v.form],
            "selectors": list(v.selectors),
        }
        for v in plan.variables
    ]


@contextmanager
def in_report(report: Report, name: str) -> Iterator[None]:
    """Where a check fails, make the details of its error the report so far, with the failed check."""
    try:
        yield
    except CheckFailedError as error:
        found = error.details
        failed = {"name": name, "passed": False, "message": str(error), "evidence": found}
        checks = found["checks"] if found.keys() == {"checks"} else [failed]
        error.details = {**report, "checks": [*report["checks"], *checks]}
        raise
