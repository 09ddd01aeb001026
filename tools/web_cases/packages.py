"""The npm packages, installed once and kept; and where a browser is.

`python -m tools.web_cases.packages DIRECTORY` installs them there and prints the folder `node_modules`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["PackagesUnavailableError", "default_directory", "find_chromium", "install", "version_of"]

_DESCRIPTION = Path(__file__).resolve().parent
_FILES = ("package.json", "package-lock.json")
_MOST_SECONDS = 300
_MARKER = "installed"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class PackagesUnavailableError(Exception):
    """The packages cannot be installed. The message is the reason."""


def default_directory() -> Path:
    """Where the packages are kept unless the user says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphfreeze" / "web"


def install(directory: Path) -> Path:
    """Install what package-lock.json says, where it is not there yet.

    Returns:
        The folder `node_modules`.

    Raises:
        PackagesUnavailableError: There is no npm, or it cannot install them.
    """
    modules, marker = directory / "node_modules", directory / _MARKER
    wanted = (_DESCRIPTION / "package-lock.json").read_text(encoding="utf-8")
    if marker.is_file() and marker.read_text(encoding="utf-8") == wanted:
        return modules
    npm = shutil.which("npm")
    if npm is None:
        raise PackagesUnavailableError("npm is not on the PATH: install Node.js 20 or newer")
    directory.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    for name in _FILES:
        shutil.copyfile(_DESCRIPTION / name, directory / name)
    # Its script would download CUDA libraries; those for the CPU are in the package.
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        found = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=False, timeout=_MOST_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise PackagesUnavailableError(f"npm did not install them within {_MOST_SECONDS} seconds") from None
    if found.returncode:
        raise PackagesUnavailableError(f"npm cannot install them: {found.stderr.strip()[-300:]}")
    # Written last: an interrupted installation is made again.
    marker.write_text(wanted, encoding="utf-8")
    return modules


def version_of(modules: Path, package: str) -> str:
    """The version of an installed package."""
    described = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))
    return str(described["version"])


def find_chromium() -> Path | None:
    """A Chromium or Chrome on the PATH; the variable CHROMIUM overrides the search."""
    named = os.environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else _BROWSERS)), None)
    return None if found is None else Path(found)


if __name__ == "__main__":
    try:
        print(install(Path(sys.argv[1])))
    except PackagesUnavailableError as error:
        sys.exit(str(error))
