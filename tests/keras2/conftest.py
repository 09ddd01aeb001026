"""Keras 2 saves, made once, and their rewrites by the passes alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from graphfreeze.passes.freeze_reads import freeze_reads
from graphfreeze.passes.keras2 import Keras2Mode
from graphfreeze.passes.write import write
from graphfreeze.savedmodel.model import SavedModel
from graphfreeze.selection import FreezePlan, Selection, resolve_plan

from .models import MODELS

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Model name -> the directory of its SavedModel. Not to be changed."""

    @cache
    def save(name: str) -> Path:
        path = tmp_path_factory.mktemp("keras2") / name
        MODELS[name](path)
        return path

    return save


def rewrite(original: Path, out: Path, selectors: tuple[str, ...], mode: Keras2Mode) -> FreezePlan:
    """Freeze what these selectors name, and write the result."""
    model = SavedModel.load(original)
    plan = resolve_plan([Selection("freeze", text) for text in selectors], model)
    write(freeze_reads(model, plan, keras2=mode), out)
    return plan
