"""What the product's pass writes is proven, and the evidence says what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from graphfreeze.errors import ModelReadError, VerificationError
from graphfreeze.prover import prove
from graphfreeze.selection.plan import Form, FreezePlan
from tests.prover.conftest import TARGETS, Rewritten
from tests.prover.rewriting import freeze_plan, rewrite

FORMS: tuple[Form, ...] = ("blend", "select")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", TARGETS)
def test_the_pass_is_proven(rewritten: Rewritten, name: str, form: Form) -> None:
    evidence = prove(*rewritten(name, form))
    assert evidence["proven"] is True
    assert evidence["schema_version"] == 1
    assert all(variable["masked_reads"] for variable in evidence["variables"])
    assert {variable["form"] for variable in evidence["variables"]} == {form}
    assert json.loads(json.dumps(evidence)) == evidence


# Counted by hand in the models' sources.
@pytest.mark.parametrize(
    ("name", "path", "operations"),
    [
        ("shared", "a", {"ReadVariableOp"}),
        ("gathers", "rows", {"ResourceGather", "ResourceGatherNd", "GatherV2"}),
        ("gathers", "batched", {"ResourceGather"}),
        ("recurrent", "variables/0", {"GatherV2"}),
        ("recurrent", "variables/2", {"ReadVariableOp"}),
    ],
)
def test_the_evidence_names_the_operations(rewritten: Rewritten, name: str, path: str, operations: set[str]) -> None:
    variables = prove(*rewritten(name, "blend"))["variables"]
    reads = next(variable for variable in variables if variable["object_path"] == path)["masked_reads"]
    assert {read["operation"] for read in reads} == operations


def test_a_shared_function_is_cloned_per_variable(rewritten: Rewritten) -> None:
    evidence = prove(*rewritten("shared", "select"))
    functions = [{read["function"] for read in variable["masked_reads"]} for variable in evidence["variables"]]
    originals = [{read["original_function"] for read in variable["masked_reads"]} for variable in evidence["variables"]]
    assert functions[0].isdisjoint(functions[1])
    assert originals[0] == originals[1]
    assert evidence["functions"]["cloned"] >= 2


def test_an_empty_plan_changes_nothing(original: Callable[[str], Path]) -> None:
    evidence = prove(original("shared"), original("shared"), FreezePlan())
    assert evidence["variables"] == []
    assert evidence["functions"]["unchanged"] == evidence["functions"]["compared"]
    assert evidence["functions"]["nodes_identical"] == evidence["functions"]["nodes_compared"]


MASKS = {
    "whole": np.zeros((1, 1), np.bool_),
    "columns": np.array([[False, True, False]]),
    "rows": np.array([[False], [True], [True], [False]]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mask", MASKS)
def test_small_masks_are_proven(original: Callable[[str], Path], tmp_path: Path, mask: str, form: Form) -> None:
    plan = freeze_plan(original("gathers"), ["rows"], form, MASKS[mask].copy())
    evidence = prove(original("gathers"), rewrite(original("gathers"), tmp_path / "out", plan), plan)
    assert len(evidence["variables"][0]["masked_reads"]) >= 4


def test_the_plan_may_not_be_another(rewritten: Rewritten, original: Callable[[str], Path]) -> None:
    _, output, _ = rewritten("shared", "blend")
    with pytest.raises(VerificationError, match="only reads of the plan"):
        prove(original("shared"), output, freeze_plan(original("shared"), ["a"], "blend"))
    with pytest.raises(VerificationError, match="to be masked, found the unmasked read"):
        prove(original("shared"), original("shared"), freeze_plan(original("shared"), ["a"], "blend"))


def test_unreadable_models(rewritten: Rewritten, tmp_path: Path) -> None:
    before, after, plan = rewritten("shared", "blend")
    broken = Path(shutil.copytree(after, tmp_path / "broken"))
    (broken / "saved_model.pb").write_bytes(b"\xff" * 100)
    with pytest.raises(VerificationError, match="serialised SavedModel"):
        prove(before, broken, plan)
    with pytest.raises(ModelReadError, match="serialised SavedModel"):
        prove(broken, after, plan)
    with pytest.raises(ModelReadError, match="FileNotFoundError"):
        prove(tmp_path / "nowhere", after, plan)
