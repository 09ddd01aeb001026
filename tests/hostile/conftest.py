"""The model is saved once; each test gets a copy, and little time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

from .lookup_model import Lookup


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole")
    (directory / "words.txt").write_text("one\ntwo\n")
    tf.saved_model.save(Lookup(directory / "words.txt"), str(directory / "model"))
    return directory / "model"


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(whole, tmp_path / "model")
    start = time.monotonic()
    yield tmp_path / "model"
    assert time.monotonic() - start < 60
    assert sorted(path.name for path in tmp_path.iterdir() if path.name not in ("secret", "out")) == ["model"]
