"""Originals are built once a session, rewritten models once for each plan; tests that change one get a copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from graphfreeze.selection.plan import Form, FreezePlan
from tests.prover.models import BUILDERS
from tests.prover.mutant import Make, Mutant
from tests.prover.rewriting import freeze_plan, rewrite

TARGETS: dict[str, list[str]] = {
    "shared": ["a", "b"],
    "control_flow": ["a", "b"],
    "gathers": ["rows", "batched"],
    "custom_gradient": ["w"],
    "table": ["w"],
    "recurrent": ["*"],
    "counter": ["w"],
    "updates": ["w", "e", "b"],
    "endpoints": ["a", "b"],
}
"""What is frozen in each model that can be rewritten."""


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Model name -> its original SavedModel. Not to be changed."""
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            built[name] = BUILDERS[name](tmp_path_factory.mktemp(name) / "original")
        return built[name]

    return get


Rewritten = Callable[[str, Form], tuple[Path, Path, FreezePlan]]


@pytest.fixture(scope="session")
def rewritten(original: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Rewritten:
    """Model name and form -> original, rewritten model, plan. Not to be changed."""
    made: dict[tuple[str, Form], tuple[Path, Path, FreezePlan]] = {}

    def get(name: str, form: Form) -> tuple[Path, Path, FreezePlan]:
        if (name, form) not in made:
            plan = freeze_plan(original(name), TARGETS[name], form)
            output = rewrite(original(name), tmp_path_factory.mktemp(f"{name}_{form}") / "rewritten", plan)
            made[(name, form)] = original(name), output, plan
        return made[(name, form)]

    return get


@pytest.fixture
def mutant(rewritten: Rewritten, tmp_path: Path) -> Make:
    """Model name and form -> a copy of original and rewritten model that a test may change."""
    return lambda name, form: Mutant.copy(*rewritten(name, form), tmp_path)
