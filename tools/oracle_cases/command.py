"""The command line of `tools/oracle`."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import keras

from graphfreeze.errors import GraphfreezeError
from tools.bench_cases.environments import default_directory, python_of
from tools.bench_cases.peers import SIDES
from tools.coverage_cases.case import Case, choose
from tools.oracle_cases.cases import oracle_cases
from tools.oracle_cases.comparison import Finding, compare_with_oracle
from tools.oracle_cases.document import read_lines, write_document
from tools.oracle_cases.prepare import prepare

__all__ = ["main"]

_ROOT = Path(__file__).resolve().parents[2]
_AT_ONCE = 12
_LIMIT = 600.0


def main(page: Path) -> int:
    """Run the chosen cases and write the page. Returns 1 where one differs."""
    parser = argparse.ArgumentParser(
        description="Compare gradients with onnxruntime-training's, and write docs/oracle.md."
    )
    parser.add_argument(
        "patterns", nargs="*", help="what to run: group, name or group/name, with * and ?; by default all"
    )
    parser.add_argument(
        "--environments", type=Path, default=default_directory() / "environments", help="where they are"
    )
    parser.add_argument("--dry-run", action="store_true", help="leave docs/oracle.md as it is")
    arguments = parser.parse_args()
    side = SIDES["onnxruntime-training"]
    python = python_of(side.name, side.requirements, arguments.environments)
    cases, order = choose(oracle_cases(), arguments.patterns), [case.key for case in oracle_cases()]
    findings = []
    for start in range(0, len(cases), _AT_ONCE):
        for finding in _compare(cases[start : start + _AT_ONCE], python):
            findings.append(finding)
            error = "" if finding.gradient_error is None else f"{finding.gradient_error:.1e}"
            print(f"{finding.name}: {finding.outcome} {error} {' '.join(finding.detail.split())[:200]}", flush=True)
        if not arguments.dry_run:
            write_document(page, order, read_lines(page), findings)
    return 1 if any(finding.outcome == "differs" for finding in findings) else 0


def _compare(cases: Sequence[Case], python: Path) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        findings = [Finding(case.key) for case in cases]
        prepared: dict[Path, Finding] = {}
        for index, (case, finding) in enumerate(zip(cases, findings, strict=True)):
            directory = Path(name) / str(index)
            directory.mkdir()
            try:
                prepare(case, directory)
                prepared[directory] = finding
            except GraphfreezeError as error:
                finding.detail = str(error)
            finally:
                keras.backend.clear_session()
        _derive(list(prepared), python)
        for directory, finding in prepared.items():
            if (directory / "oracle.npz").is_file():
                compare_with_oracle(directory, finding)
            else:
                finding.detail = (directory / "refusal.txt").read_text(encoding="utf-8")
        return findings


def _derive(directories: Sequence[Path], python: Path) -> None:
    """Let it derive the gradients, each in a process of its own: behind others in one, it has been wrong."""
    for directory in directories:
        command = [str(python), "-m", "tools.oracle_cases.peer", str(directory)]
        try:
            subprocess.run(command, cwd=_ROOT, capture_output=True, check=False, timeout=_LIMIT)
            reason = "its process dies"
        except subprocess.TimeoutExpired:
            reason = f"it takes more than {_LIMIT:.0f} s"
        if not any((directory / name).is_file() for name in ("oracle.npz", "refusal.txt")):
            (directory / "refusal.txt").write_text(reason, encoding="utf-8")
