"""`rewrite` with all checks, from end to end: what passes, and what a failed check leaves behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import graphfreeze
from graphfreeze.cli import run
from graphfreeze.lowering.rule import RULES

from .conftest import Exported
from .functional import replace_rule
from .models import MODELS

Model = Callable[[str], Exported]


def rewrite(model: Exported, out: Path) -> dict[str, Any]:
    sample = model.sample
    selection = graphfreeze.Selection("freeze", sample.selector)
    report: dict[str, Any] = graphfreeze.rewrite(
        model.path, out, [selection], loss=sample.loss, optimizer="adam", endpoint=sample.endpoint, checks="full"
    )
    return report


@pytest.mark.parametrize("name", MODELS)
def test_every_check_passes(exported: Model, tmp_path: Path, name: str) -> None:
    report = rewrite(exported(name), tmp_path / "out")
    checks = {check["name"]: check for check in report["checks"]}
    assert list(checks) == [
        "proof",
        "the rewritten model computes what the original computes",
        "gradients are the original's where trainable, zero where frozen",
        "the graph gradients computes in float64 what TensorFlow computes",
        "the graph apply_gradients computes in float64 what TensorFlow computes",
        "single optimizer steps equal TensorFlow's",
        "validation",
    ]
    assert all(check["passed"] for check in report["checks"])
    for graph in ("gradients", "apply_gradients"):
        evidence = checks[f"the graph {graph} computes in float64 what TensorFlow computes"]["evidence"]
        assert evidence["status"] == "compared"
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(json.dumps(report))


def test_a_failed_check_leaves_nothing(exported: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_rule(monkeypatch, "Mean", lambda node, right: RULES["Sum"].apply(node))
    with pytest.raises(graphfreeze.ValidationError, match="of the graph gradients differs") as caught:
        rewrite(exported("embedding"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert caught.value.exit_code == 1
    details = caught.value.details
    assert [variable["name"] for variable in details["variables"]] == ["net/table/embeddings"]
    assert [check["passed"] for check in details["checks"]] == [True, True, True, False]
    assert details["checks"][-1]["evidence"]["tensors"]
    json.dumps(details, allow_nan=False)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_failed_check_on_the_command_line(
    exported: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    replace_rule(monkeypatch, "Mean", lambda node, right: RULES["Sum"].apply(node))
    model = exported("embedding")
    arguments = ["rewrite", str(model.path), str(tmp_path / "out"), "--freeze", model.sample.selector]
    arguments += ["--loss", model.sample.loss, *(["--json"] if as_json else [])]
    assert run(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []
    if as_json:
        error = json.loads(printed.err.splitlines()[-1])["error"]
        assert (error["type"], error["exit_code"]) == ("ValidationError", 1)
        assert not error["details"]["checks"][-1]["passed"]
    else:
        assert "FAILED" in printed.err
        assert "net/table/embeddings" in printed.err
        assert "tensors differ from TensorFlow's" in printed.err


def test_a_failed_validation_is_in_the_report_too(
    exported: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphfreeze.validation import gradients

    monkeypatch.setattr(gradients, "compare", lambda *arguments, **options: _different(*arguments, **options))
    with pytest.raises(graphfreeze.ValidationError) as caught:
        rewrite(exported("embedding"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    last = caught.value.details["checks"][-1]
    assert (last["name"], last["passed"]) == ("validation", False)
    assert "parameters" in last["evidence"]


def _different(*arguments: Any, **options: Any) -> Any:
    from dataclasses import replace

    from graphfreeze.validation.tolerance import compare

    return replace(compare(*arguments, **options), accepted=False, rule="different")
