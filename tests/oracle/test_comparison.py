"""What the tool says of gradients of an oracle: here TensorFlow's tape, right and made wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from graphfreeze.artifact import read_artifact
from graphfreeze.errors import UnsupportedError
from tools.coverage_cases.case import choose
from tools.oracle_cases.cases import oracle_cases
from tools.oracle_cases.comparison import Finding, compare_with_oracle
from tools.oracle_cases.document import read_lines, write_document
from tools.oracle_cases.prepare import prepare

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small")
    (case,) = choose(oracle_cases(), ["models/small"])
    prepare(case, directory)
    return directory


def gradients(directory: Path) -> Arrays:
    reference = read_artifact(directory / "training").reference
    names = json.loads((directory / "case.json").read_text())["trainable"]
    return {"loss": reference["loss"], **{name: reference[f"gradient/{name}"] for name in names}}


def save(directory: Path, arrays: Arrays) -> None:
    np.savez(directory / "oracle.npz", **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own options


def test_the_forward_model_has_its_weights_and_no_loss(prepared: Path) -> None:
    model = onnx.load(prepared / "forward.onnx")
    known = json.loads((prepared / "case.json").read_text())
    assert known["loss"] == "cross_entropy"
    assert set(known["trainable"]) == {tensor.name for tensor in model.graph.initializer} & set(known["trainable"])
    assert len(known["trainable"]) == 4
    assert [value.name for value in model.graph.input] == ["x"]


def test_right_gradients_agree(prepared: Path) -> None:
    save(prepared, gradients(prepared))
    found = Finding("models/small")
    compare_with_oracle(prepared, found)
    assert (found.outcome, found.tensors, found.differing) == ("agrees", 4, [])
    assert found.loss_error is not None and found.loss_error < 1e-6
    assert found.gradient_error is not None and found.gradient_error < 1e-5
    assert found.tensorflow_error == 0


@pytest.mark.parametrize(
    ("arbiter", "verdict"),
    [("float64", r"1 tensors, .* at most .*e-0[78] .* its 5\.0e-01"), ("slopes", ".* ours right")],
)
def test_who_is_wrong_is_found_out(prepared: Path, arbiter: str, verdict: str, tmp_path: Path) -> None:
    arrays = gradients(prepared)
    directory, prepared = prepared, tmp_path / "copy"
    shutil.copytree(directory, prepared)
    if arbiter == "slopes":
        (prepared / "float64.npz").unlink()
    wrong = next(name for name in arrays if name.endswith("kernel"))
    save(prepared, {**arrays, wrong: arrays[wrong] * np.float32(1.5)})
    found = Finding("models/small")
    compare_with_oracle(prepared, found)
    assert (found.outcome, found.differing) == ("differs", [wrong])
    assert found.gradient_error == pytest.approx(1 / 3, rel=1e-3)
    assert re.fullmatch(verdict, found.detail)


def test_a_model_that_adds_losses_is_refused(tmp_path: Path) -> None:
    (case,) = choose(oracle_cases(), ["layers/ActivityRegularization"])
    with pytest.raises(UnsupportedError, match="adds losses of its own"):
        prepare(case, tmp_path)


def test_the_page_keeps_what_was_not_run_now(tmp_path: Path) -> None:
    page, order = tmp_path / "oracle.md", ["a", "b", "c"]
    write_document(page, order, {}, [Finding("a", "agrees", tensors=2), Finding("b", detail="no gradient\nof | it")])
    write_document(
        page, order, read_lines(page), [Finding("c", "differs", "ours right", tensors=1, gradient_error=0.5)]
    )
    text = page.read_text(encoding="utf-8")
    assert "1 of 2 agree" in text
    assert "| `b` | no gradient of \\| it |" in text
    assert "| `c` | 1 | 0 |  | 5.0e-01 |  | differs: ours right |" in text
    write_document(page, order, read_lines(page), [Finding("b", "agrees", tensors=1)])
    assert "Without an oracle (0)" in page.read_text(encoding="utf-8")
