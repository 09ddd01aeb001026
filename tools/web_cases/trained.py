"""One model, trained on one backend after the other, each beside `Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tools.web_cases.backends import BackendError, Run, make_folder, run_documented_in_node, run_in_browser, run_in_node
from tools.web_cases.cases import WebCase, draw_batches
from tools.web_cases.comparison import Finding, compare_run
from tools.web_cases.prepare import expect, make_artifact, reference_batch, write_batches

__all__ = ["BACKENDS", "Trained"]

BACKENDS = ("node", "node-wasm", "node-documented", "chromium-wasm", "chromium-webgpu", "chromium-documented")
_DOCUMENTED_STEPS = 3


class Trained:
    """Makes the artifact of a case, and what `Trainer` makes of it.

    Args:
        case: The model.
        directory: Where to.
        modules: The folder `node_modules`.
        steps: How many steps each backend trains.

    Attributes:
        folder: The programs, with the artifact in `out`.
    """

    def __init__(self, case: WebCase, directory: Path, modules: Path, steps: int) -> None:
        out = make_artifact(case, directory)
        self._name = case.name
        self.folder = directory / "folder"
        make_folder(self.folder, out, modules)
        batches = draw_batches(case, steps)
        write_batches(self.folder / "batches.safetensors", batches)
        self._expected = expect(out, batches, case.coarse)
        self._expected_documented = expect(out, [reference_batch(out)] * _DOCUMENTED_STEPS, case.coarse)

    def on(self, backend: str, chromium: Path | None, *, software: bool) -> Finding:
        """Train there and compare.

        Args:
            backend: One of `BACKENDS`.
            chromium: The browser.
            software: Whether WebGPU runs in software.
        """

        def browse(provider: str | None) -> Run:
            assert chromium is not None
            return run_in_browser(self.folder, chromium, provider, software=software)

        runs: dict[str, Callable[[], Run]] = {
            "node": lambda: run_in_node(self.folder, "onnxruntime-node"),
            "node-wasm": lambda: run_in_node(self.folder, "onnxruntime-web"),
            "node-documented": lambda: run_documented_in_node(self.folder),
            "chromium-wasm": lambda: browse("wasm"),
            "chromium-webgpu": lambda: browse("webgpu"),
            "chromium-documented": lambda: browse(None),
        }
        expected = self._expected_documented if backend.endswith("documented") else self._expected
        finding = Finding(self._name, backend)
        try:
            run = runs[backend]()
        except BackendError as error:
            finding.detail = str(error)
        else:
            compare_run(run, expected, finding)
        return finding
