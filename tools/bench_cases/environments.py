"""Virtual environments for the peers, made once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["EnvironmentUnavailableError", "default_directory", "python_of"]

_MARKER = "requirements.txt"


class EnvironmentUnavailableError(Exception):
    """The packages cannot be installed. The message is the reason, as the document shows it."""


def default_directory() -> Path:
    """Where environments are kept unless the user says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphfreeze" / "bench"


def python_of(name: str, requirements: tuple[str, ...], directory: Path) -> Path:
    """The Python of an environment with these packages, which is made where it is not there yet.

    Args:
        name: The environment's folder.
        requirements: What pip is to install; without any, it is the Python that runs this.
        directory: Where the environments are.

    Raises:
        EnvironmentUnavailableError: pip cannot install them.
    """
    if not requirements:
        return Path(sys.executable)
    environment = directory / name
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = "\n".join(requirements) + "\n"
    marker = environment / _MARKER
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(environment, ignore_errors=True)
    venv.create(environment, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.startswith("ERROR")] or [found.stderr.strip()]
        raise EnvironmentUnavailableError(f"pip cannot install {' '.join(requirements)}: {lines[-1]}")
    # Written last: an interrupted installation is made again.
    marker.write_text(wanted, encoding="utf-8")
    return python
