from __future__ import annotations

from pathlib import Path

import pytest

from tests.artifact.toy import write_toy


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_toy(tmp_path / "out")
