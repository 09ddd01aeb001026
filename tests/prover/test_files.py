"""Every byte of the files that must stay as they are is compared, in whatever stretches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphfreeze.errors import VerificationError
from graphfreeze.prover import files
from graphfreeze.prover.files import compare_files

NAME = "variables/variables.data-00000-of-00001"
SIZE = 10_007


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(files, "BLOCK", 64)
    monkeypatch.setattr(files, "STRETCH", 1000)
    content = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes()
    for side in ("original", "rewritten"):
        (tmp_path / side / "variables").mkdir(parents=True)
        (tmp_path / side / NAME).write_bytes(content)
        (tmp_path / side / "empty").write_bytes(b"")
    return tmp_path / "original", tmp_path / "rewritten"


def test_the_same(pair: tuple[Path, Path]) -> None:
    assert compare_files(*pair) == {"identical": 2, "identical_bytes": SIZE}


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 999, 1000, 5555, 9983, 9984, 9999, 10_000, SIZE - 1])
@pytest.mark.parametrize("bit", [1, 128])
def test_one_bit_that_differs(pair: tuple[Path, Path], offset: int, bit: int) -> None:
    content = bytearray((pair[1] / NAME).read_bytes())
    content[offset] ^= bit
    (pair[1] / NAME).write_bytes(content)
    with pytest.raises(VerificationError, match=rf"found a difference at byte {offset}\b"):
        compare_files(*pair)


def test_the_first_of_several_differences_is_named(pair: tuple[Path, Path]) -> None:
    content = bytearray((pair[1] / NAME).read_bytes())
    for offset in (8001, 2002, 3003):
        content[offset] ^= 1
    (pair[1] / NAME).write_bytes(content)
    with pytest.raises(VerificationError, match=r"found a difference at byte 2002\b"):
        compare_files(*pair)


@pytest.mark.parametrize("size", [0, 1, 1000, SIZE - 1])
def test_a_file_that_ends_before(pair: tuple[Path, Path], size: int) -> None:
    (pair[1] / NAME).write_bytes((pair[1] / NAME).read_bytes()[:size])
    with pytest.raises(VerificationError, match=rf"found a difference at byte {size}\b"):
        compare_files(*pair)


def test_links_need_no_reading(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (pair[1] / NAME).unlink()
    (pair[1] / NAME).hardlink_to(pair[0] / NAME)

    def refuse(*_: object) -> None:
        raise AssertionError

    (pair[1] / "empty").unlink()
    (pair[1] / "empty").hardlink_to(pair[0] / "empty")
    monkeypatch.setattr(files, "_difference_between", refuse)
    assert compare_files(*pair)["identical"] == 2
