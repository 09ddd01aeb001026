"""Runs the documented programs: in Node, and in a browser without a window."""

from __future__ import annotations

import json
import queue
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.web_cases.program import write_programs
from tools.web_cases.server import PageServer

__all__ = ["BackendError", "Run", "make_folder", "run_documented_in_node", "run_in_browser", "run_in_node"]

_HERE = Path(__file__).resolve().parent
_LIMIT = 600.0
_LONGEST = 300
_FLAGS = (
    "--headless",
    # Pages of this repository alone are opened, and a container often has no user namespaces.
    "--no-sandbox",
    "--no-first-run",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A browser without a window would else end after it has loaded the page.
    "--remote-debugging-port=0",
    # A GPU in software, where there is none.
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan",
)
_SOFTWARE = "--use-webgpu-adapter=swiftshader"


class BackendError(Exception):
    """The backend does not train the artifact. The message is its own."""


@dataclass
class Run:
    """What a backend made of the batches.

    Attributes:
        losses: Of each step.
        milliseconds: Of each step.
        state: The file with the state after the last one; None of documented pages, which keep it to themselves.
        adapter: The GPU, where one was asked for.
    """

    losses: list[float]
    milliseconds: list[float] = field(default_factory=list)
    state: Path | None = None
    adapter: str | None = None


def make_folder(directory: Path, out: Path, modules: Path) -> None:
    """Lay the programs, the artifact and the packages beside each other, as docs/artifact.md has them."""
    directory.mkdir(parents=True, exist_ok=True)
    write_programs(directory)
    for name in ("drive.mjs", "node_side.mjs", "browser_side.html"):
        shutil.copyfile(_HERE / name, directory / name)
    (directory / "node_modules").symlink_to(modules, target_is_directory=True)
    if (modules / "onnxruntime-web").is_dir():
        (directory / "dist").symlink_to(modules / "onnxruntime-web" / "dist", target_is_directory=True)
    shutil.copytree(out, directory / "out")


def run_in_node(directory: Path, package: str) -> Run:
    """Train on `batches.safetensors` of the folder with that package.

    Raises:
        BackendError: The program ends with an error.
    """
    _node(directory, "node_side.mjs", package, "out/training", "batches.safetensors", f"{package}-result")
    found = json.loads((directory / f"{package}-result.json").read_text(encoding="utf-8"))
    return Run(found["losses"], found["milliseconds"], directory / f"{package}-result.safetensors")


def run_documented_in_node(directory: Path) -> Run:
    """Run `train_in_node.mjs` as it is documented: some steps on the reference batch.

    Raises:
        BackendError: The program ends with an error.
    """
    output = _node(directory, "train_in_node.mjs")
    return Run([float(line) for line in output.splitlines()], state=directory / "out/training/trained.safetensors")


def run_in_browser(directory: Path, chromium: Path, provider: str | None, *, software: bool = True) -> Run:
    """Train in a page, or load the documented page as it is.

    Args:
        directory: The folder.
        chromium: The browser.
        provider: `wasm` or `webgpu`; None for the documented page.
        software: Whether the GPU is the browser's own, in software, which every machine has.

    Raises:
        BackendError: The page reports an error, or nothing.
    """
    with PageServer(directory) as server:
        address = f"{server.address}/browser_side.html" + (f"?provider={provider}" if provider else "")
        with _browser(chromium, address, software) as is_open:
            received: dict[str, bytes] = {}
            while "result.json" not in received:
                name, body = _next(server, is_open)
                received[name] = body
    found: dict[str, Any] = json.loads(received["result.json"])
    if "error" in found:
        raise BackendError(found["error"])
    if provider is None:
        return Run(found["losses"])
    if not found["crossOriginIsolated"]:
        raise BackendError("the page is not isolated: onnxruntime-web has one thread only")
    state = directory / f"{provider}-result.safetensors"
    state.write_bytes(received["result.safetensors"])
    return Run(found["losses"], found["milliseconds"], state, found["adapter"])


def _node(directory: Path, program: str, *arguments: str) -> str:
    command = ["node", program, *arguments]
    try:
        found = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=_LIMIT)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{program} takes more than {_LIMIT:.0f} s") from error
    if found.returncode:
        # Node shows the line of the source first, which may be a whole library.
        thrown = re.search(r"^\w*Error: .*", found.stderr, re.MULTILINE)
        raise BackendError(thrown[0] if thrown else found.stderr.strip()[-_LONGEST:])
    return found.stdout


@contextmanager
def _browser(chromium: Path, address: str, software: bool) -> Iterator[Callable[[], bool]]:
    """A browser at the address; it ends with the block. Gives a function that says whether it still runs."""
    with tempfile.TemporaryDirectory(prefix="graphfreeze_web_", ignore_cleanup_errors=True) as profile:
        flags = (*_FLAGS, *((_SOFTWARE,) if software else ()), f"--user-data-dir={profile}")
        process = subprocess.Popen(
            [str(chromium), *flags, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield lambda: process.poll() is None
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _next(server: PageServer, is_open: Callable[[], bool]) -> tuple[str, bytes]:
    end = time.monotonic() + _LIMIT
    while time.monotonic() < end:
        try:
            return server.received.get(timeout=0.5)
        except queue.Empty:
            if not is_open():
                raise BackendError("the browser ended without a result") from None
    raise BackendError(f"the page takes more than {_LIMIT:.0f} s")
