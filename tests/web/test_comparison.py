"""What the tool says of a run: here `Trainer`'s own, as it is and made wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphfreeze.artifact.tensors import write_tensors
from tools.web_cases.backends import Run
from tools.web_cases.cases import CASES, draw_batches
from tools.web_cases.comparison import Finding, compare_run
from tools.web_cases.document import line_of, read_lines, write_document
from tools.web_cases.prepare import Expected, expect, make_artifact
from tools.web_cases.program import documented_programs


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Expected:
    case = CASES["two_outputs"]
    return expect(make_artifact(case, tmp_path_factory.mktemp("two_outputs")), draw_batches(case, 4))


def find(expected: Expected, path: Path, changes: dict[str, npt.NDArray[Any]], losses: list[float]) -> Finding:
    write_tensors(path, {**expected.state, **changes})
    finding = Finding("two_outputs", "node")
    compare_run(Run(losses, [1.0, 2.0, 4.0], path), expected, finding)
    return finding


def test_the_same_agrees(expected: Expected, tmp_path: Path) -> None:
    finding = find(expected, tmp_path / "state.safetensors", {}, expected.losses)
    assert (finding.outcome, finding.loss_error, finding.state_error) == ("agrees", 0, 0)
    assert finding.rules == {"exact": len(expected.state)}
    assert (finding.frozen, finding.milliseconds) == (3 * 24, 1.0)


def test_a_wrong_loss_and_a_missing_one_differ(expected: Expected, tmp_path: Path) -> None:
    losses = [*expected.losses[:-1], expected.losses[-1] * 1.001]
    finding = find(expected, tmp_path / "state.safetensors", {}, losses)
    assert finding.outcome == "differs" and finding.detail.startswith("the loss of step 3 is")
    finding = find(expected, tmp_path / "state.safetensors", {}, expected.losses[:-1])
    assert finding.detail == "3 losses in place of 4"


def test_an_update_that_is_a_little_too_large_differs(expected: Expected, tmp_path: Path) -> None:
    name = next(name for name in expected.state if name.endswith("label/kernel"))
    old, new = expected.initial[name], expected.state[name]
    finding = find(
        expected, tmp_path / "state.safetensors", {name: old + (new - old) * np.float32(1.01)}, expected.losses
    )
    assert finding.outcome == "differs" and finding.detail.startswith(f"{name} has changed by")


def test_a_counter_that_is_wrong_differs(expected: Expected, tmp_path: Path) -> None:
    name = next(name for name, value in expected.state.items() if value.dtype.kind == "i")
    finding = find(
        expected, tmp_path / "state.safetensors", {name: np.array(expected.state[name] + 1)}, expected.losses
    )
    assert (finding.outcome, finding.detail) == ("differs", f"{name} is not equal")


def test_a_frozen_element_that_moved_by_one_bit_differs(tmp_path: Path) -> None:
    case = replace(CASES["two_outputs"], freeze=("**/trunk/kernel[2:5, ::2]",))
    expected = expect(make_artifact(case, tmp_path), draw_batches(case, 2))
    name = next(name for name in expected.state if name.endswith("trunk/kernel"))
    kernel = expected.state[name].copy()
    kernel[2, 0] = np.nextafter(kernel[2, 0], np.float32(1))
    finding = find(expected, tmp_path / "state.safetensors", {name: kernel}, expected.losses)
    assert finding.outcome == "differs" and f"1 frozen elements of {name} differ from the plan" in finding.detail


def test_the_page_keeps_what_was_not_run_now(tmp_path: Path) -> None:
    page = tmp_path / "web.md"
    steps: dict[str, Any] = {"steps": 2, "backends": ("node", "chromium-webgpu"), "versions": {"Node": "20"}}
    refused = Finding("mlp", "chromium-webgpu", detail="no kernel | for\nit")
    write_document(page, {}, [Finding("mlp", "node", "agrees", loss_error=1e-7, frozen=1234), refused], **steps)
    write_document(page, read_lines(page), [Finding("cnn", "node", "differs", "the loss")], **steps)
    text = page.read_text(encoding="utf-8")
    assert "Outcomes of 3 runs: agrees 1, cannot 1, differs 1." in text
    assert "| `mlp` | `node` | 1.0e-07 |  |  | 1,234 |  |  | agrees |" in text
    assert line_of(refused) in text and "cannot: no kernel \\| for it |" in text


def test_the_documented_programs_are_found() -> None:
    programs = documented_programs()
    assert sorted(programs) == ["train.html", "train.mjs", "train_in_node.mjs"]
    assert "export async function load(" in programs["train.mjs"]
