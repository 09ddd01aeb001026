"""The command line of `tools/finite_differences`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tools.coverage_cases.case import choose
from tools.finite_difference_cases.cases import finite_difference_cases
from tools.finite_difference_cases.document import line_of, read_lines, write_document
from tools.finite_difference_cases.finding import Workspace

__all__ = ["main"]


def main(page: Path) -> int:
    """Run the chosen cases and write the page. Returns 1 where one differs."""
    parser = argparse.ArgumentParser(
        description="Compare gradients with finite differences of the loss, and write docs/finite-differences.md."
    )
    parser.add_argument(
        "patterns", nargs="*", help="what to run: a group, a name or group/name, with * and ?; by default everything"
    )
    parser.add_argument("--dry-run", action="store_true", help="leave docs/finite-differences.md as it is")
    arguments = parser.parse_args()
    cases = finite_difference_cases()
    chosen = choose(cases, arguments.patterns)
    if not chosen:
        parser.error(f"no case matches; the groups are {', '.join(dict.fromkeys(case.group for case in cases))}")
    differing = 0
    with Workspace.temporary() as workspace:
        for case in chosen:
            start = time.perf_counter()
            found = workspace.find(case)
            differing += found.outcome == "differs"
            print(f"{time.perf_counter() - start:6.1f} s  {line_of(found)[2:-2]}", flush=True)
            if not arguments.dry_run:
                write_document(page, [case.key for case in cases], read_lines(page) | {case.key: line_of(found)})
    return 1 if differing else 0
