"""The command line of `tools/web`."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

import onnxruntime

from tools.web_cases.cases import CASES
from tools.web_cases.document import line_of, read_lines, write_document
from tools.web_cases.packages import default_directory, find_chromium, install, version_of
from tools.web_cases.trained import BACKENDS, Trained

__all__ = ["main"]


def main(page: Path) -> int:
    """Train the chosen models on the chosen backends and write the page. Returns 1 where one differs."""
    parser = argparse.ArgumentParser(description="Train in Node and in Chromium, compare, and write docs/web.md.")
    parser.add_argument("models", nargs="*", help=f"which of {', '.join(CASES)}, with * and ?; by default all")
    parser.add_argument("--backends", default=",".join(BACKENDS), help="which, separated by commas; by default all")
    parser.add_argument("--steps", type=int, default=20, help="how many steps; by default 20")
    parser.add_argument("--packages", type=Path, default=default_directory(), help="where the npm packages are kept")
    parser.add_argument("--hardware", action="store_true", help="WebGPU on the machine's GPU, not on one in software")
    parser.add_argument("--dry-run", action="store_true", help="leave docs/web.md as it is")
    arguments = parser.parse_args()
    wanted = arguments.backends.split(",")
    if unknown := set(wanted) - set(BACKENDS):
        parser.error(f"no backend {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    modules, chromium = install(arguments.packages), find_chromium()
    if chromium is None:
        print("without a browser: install Chromium, or name it in the variable CHROMIUM")
        wanted = [name for name in wanted if not name.startswith("chromium")]
    findings = []
    for case in CASES.values():
        if arguments.models and not any(fnmatchcase(case.name, pattern) for pattern in arguments.models):
            continue
        with tempfile.TemporaryDirectory() as name:
            trained = Trained(case, Path(name), modules, arguments.steps)
            for backend in wanted:
                finding = trained.on(backend, chromium, software=not arguments.hardware)
                findings.append(finding)
                print(line_of(finding), flush=True)
        if not arguments.dry_run:
            write_document(
                page,
                read_lines(page),
                findings,
                steps=arguments.steps,
                backends=BACKENDS,
                versions=_versions(modules, chromium),
            )
    return 1 if any(finding.outcome == "differs" for finding in findings) else 0


def _versions(modules: Path, chromium: Path | None) -> dict[str, str]:
    versions = {
        "graphfreeze": version("graphfreeze"),
        "onnxruntime-node": version_of(modules, "onnxruntime-node"),
        "onnxruntime-web": version_of(modules, "onnxruntime-web"),
        "Node": _first_line("node", "--version").removeprefix("v"),
    }
    if chromium is not None:
        versions["Chromium"] = _first_line(str(chromium), "--version").split()[1]
    return {**versions, "onnxruntime in Python": onnxruntime.__version__}


def _first_line(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
