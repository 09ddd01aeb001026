"""A few cases of `tools/coverage`, and that its list is complete."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from graphfreeze.training.losses import LOSSES
from graphfreeze.training.optimizers import OPTIMIZERS
from tools.coverage_cases.all_cases import all_cases
from tools.coverage_cases.applications import FAMILIES
from tools.coverage_cases.case import Case, after_dense, choose
from tools.coverage_cases.document import read_rows, row_of, write_document
from tools.coverage_cases.layers import LEFT_OUT
from tools.coverage_cases.measure import Workspace

CASES = ["losses/huber", "optimizers/muon", "layers/SpectralNormalization"]


@pytest.mark.parametrize("name", CASES)
def test_a_case_agrees(name: str) -> None:
    (case,) = choose(all_cases(), [name])
    with Workspace.temporary() as workspace:
        found = workspace.measure(case)
    assert (found.outcome, found.detail) == ("agrees", "")
    assert found.loss_error is not None and found.loss_error < 1e-6
    assert found.nodes


def test_every_failure_is_an_outcome() -> None:
    def broken() -> None:
        raise OSError("no such model")

    make = after_dense((3,))
    with Workspace.temporary() as workspace:
        assert workspace.measure(Case("a", "b", broken)).detail == "OSError: no such model"
        assert workspace.measure(Case("a", "c", make, loss="none")).outcome == "refused"


def test_names_and_cases_are_unique_and_complete() -> None:
    cases = all_cases()
    assert len({case.key for case in cases}) == len(cases)
    tracked = {(case.group, case.tracks) for case in cases}
    layers = {
        getattr(keras.layers, str(name)).__name__ for group, name in tracked if group in ("layers", "augmentation")
    }
    classes = {item.__name__ for item in vars(keras.layers).values() if isinstance(item, type)}
    assert classes - layers == set(LEFT_OUT)
    assert set(LOSSES.values()) <= {name for group, name in tracked if group == "losses"}
    assert set(OPTIMIZERS.values()) <= {name for group, name in tracked if group == "optimizers"}
    families = {name for name, item in vars(keras.applications).items() if type(item) is type(keras)}
    assert families - {"imagenet_utils", "resnet50"} == set(FAMILIES)


def test_rows_of_cases_that_were_not_run_are_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    cases = all_cases()[:3]
    with Workspace.temporary() as workspace:
        rows = {case.key: row_of(workspace.measure(case)) for case in cases[:1]}
    write_document(page, cases, rows, [("this", "that")])
    assert read_rows(page) == rows
    assert "(1 of 1 agree)" in page.read_text()
