"""The command line of `tools/coverage`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tools.coverage_cases.all_cases import all_cases, left_out
from tools.coverage_cases.case import choose
from tools.coverage_cases.document import read_rows, row_of, write_document
from tools.coverage_cases.hub import GROUP as HUB
from tools.coverage_cases.hub import is_installed
from tools.coverage_cases.measure import Workspace

__all__ = ["main"]


def main(page: Path) -> int:
    """Run the chosen cases and write the page. Returns 1 where one neither agrees nor is refused."""
    parser = argparse.ArgumentParser(description="Convert, compare with TensorFlow, and write docs/coverage.md.")
    parser.add_argument(
        "patterns", nargs="*", help="what to run: a group, a name or group/name, with * and ?; by default everything"
    )
    parser.add_argument("--list", action="store_true", help="show the cases and run nothing")
    parser.add_argument("--dry-run", action="store_true", help="leave docs/coverage.md as it is")
    parser.add_argument("--jobs", type=int, choices=[1], default=1, help="cases at a time: one, they are measured")
    arguments = parser.parse_args()
    cases = all_cases()
    chosen = choose(cases, arguments.patterns)
    if not chosen:
        parser.error(f"no case matches; the groups are {', '.join(dict.fromkeys(case.group for case in cases))}")
    if arguments.list:
        print("\n".join(case.key for case in chosen))
        return 0
    if not is_installed():
        print("without the backbones of keras_hub: it is not installed")
        chosen = [case for case in chosen if case.group != HUB]
    bad = 0
    with Workspace.temporary() as workspace:
        for case in chosen:
            start = time.perf_counter()
            found = workspace.measure(case)
            bad += found.outcome in ("disagrees", "fails")
            print(f"{time.perf_counter() - start:6.1f} s  {case.group}  {row_of(found)[2:-2]}", flush=True)
            if not arguments.dry_run:
                write_document(page, cases, read_rows(page) | {case.key: row_of(found)}, left_out())
    return 1 if bad else 0
