"""TensorFlow is imported silently on request, and what it says is not lost where the import fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphfreeze.tensorflow_loader import TENSORFLOW_MISSING


def load(*setup: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Load TensorFlow in a process of its own, after some setup."""
    lines = ["import os, sys", *setup, "from graphfreeze.tensorflow_loader import load_tensorflow", "load_tensorflow()"]
    lines += ["print('tensorflow' in sys.modules)", "os.write(2, b'the end')"]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_the_import_is_silent_on_request() -> None:
    result = load(TF_CPP_MIN_LOG_LEVEL="3")
    assert result.stdout == "True\n"
    assert result.stderr == "the end"


@pytest.mark.parametrize("level", ["0", "3"])
def test_what_a_failing_import_says_is_shown(tmp_path: Path, level: str) -> None:
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'no such library'); raise ImportError('broken')")
    result = load(f"sys.path.insert(0, {str(tmp_path)!r})", TF_CPP_MIN_LOG_LEVEL=level)
    assert result.returncode == 1
    assert "no such library" in result.stderr
    assert "ImportError: broken" in result.stderr


def test_a_missing_tensorflow_is_a_usage_error() -> None:
    # An environment that sees the package and nothing else.
    result = load("import graphfreeze", "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]")
    assert f"UsageError: {TENSORFLOW_MISSING}" in result.stderr
