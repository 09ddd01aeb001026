"""Runs a module in a process of its own, so that what it takes is known."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tools.bench_cases.paired import ROOT

__all__ = ["in_process"]


def in_process(module: str, *arguments: str) -> Any:
    """What a module prints as JSON in its last line, run by this Python."""
    found = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{found.stderr}")
    return json.loads(found.stdout.splitlines()[-1])
