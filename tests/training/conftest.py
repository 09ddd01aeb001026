"""A Keras file, made once for each module of tests."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from tests.training.models import everything


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras file with dropout and noise, whose seeds nobody gave."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    everything(penalty=False).save(path)
    return path
