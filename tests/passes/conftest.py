"""Models that several tests share, saved once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from .models import MODELS


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a sample -> the directory of its SavedModel."""

    @cache
    def save(name: str) -> Path:
        path = tmp_path_factory.mktemp("models") / name
        MODELS[name].save(path)
        return path

    return save
