"""Every byte of the files that must stay as they are is compared, in whatever stretches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphfreeze.errors import VerificationError
from graphfreeze.prover import file_bytes
from graphfreeze.prover.file_bytes import CopiesBeingWritten
from graphfreeze.prover.files import compare_files

NAME = "variables/variables.data-00000-of-00001"
SIZE = 10_007


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.setattr(file_bytes, "BLOCK", 64)
    monkeypatch.setattr(file_bytes, "STRETCH", 1000)
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
    monkeypatch.setattr(file_bytes, "_difference_between", refuse)
    assert compare_files(*pair)["identical"] == 2


class TestBesideTheWriting:
    """What was compared while it was written counts, unless a file is another one by then."""

    @pytest.fixture
    def copies(self, pair: tuple[Path, Path]) -> Iterator[CopiesBeingWritten]:
        with CopiesBeingWritten() as copies:
            yield copies

    @pytest.fixture
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """The originals that were read when the copies were whole."""
        found: list[Path] = []
        whole = file_bytes.first_difference

        def note(left: Path, right: Path) -> int | None:
            found.append(left)
            return whole(left, right)

        monkeypatch.setattr(file_bytes, "first_difference", note)
        return found

    @staticmethod
    def write(copies: CopiesBeingWritten, pair: tuple[Path, Path], content: bytes, until: int = SIZE) -> Path:
        """Write a copy in pieces under another name, say so, and give it its name."""
        original, copy = pair[0] / NAME, pair[1] / "being_written"
        with copy.open("wb", buffering=0) as file:
            for start in range(0, until, 1500):
                file.write(content[start : min(start + 1500, until)])
                copies.written(str(original), str(copy), min(start + 1500, until))
            file.write(content[until:])
        return copy.replace(pair[1] / NAME)

    def test_nothing_is_read_twice(self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path]) -> None:
        self.write(copies, pair, (pair[0] / NAME).read_bytes())
        assert compare_files(*pair, difference=copies.first_difference) == {"identical": 2, "identical_bytes": SIZE}
        assert read == [pair[0] / "empty"]

    @pytest.mark.parametrize("offset", [0, 1499, 1500, 7777, SIZE - 1])
    def test_one_bit_that_differs(
        self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path], offset: int
    ) -> None:
        content = bytearray((pair[0] / NAME).read_bytes())
        content[offset] ^= 1
        self.write(copies, pair, bytes(content))
        with pytest.raises(VerificationError, match=rf"found a difference at byte {offset}\b"):
            compare_files(*pair, difference=copies.first_difference)
        assert pair[0] / NAME not in read

    def test_a_copy_of_which_not_all_was_announced(
        self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path]
    ) -> None:
        content = bytearray((pair[0] / NAME).read_bytes())
        content[-1] ^= 1
        self.write(copies, pair, bytes(content), until=3000)
        with pytest.raises(VerificationError, match=rf"found a difference at byte {SIZE - 1}\b"):
            compare_files(*pair, difference=copies.first_difference)
        assert pair[0] / NAME in read

    def test_a_copy_that_ends_before(
        self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path]
    ) -> None:
        self.write(copies, pair, (pair[0] / NAME).read_bytes()[:-7])
        with pytest.raises(VerificationError, match=rf"found a difference at byte {SIZE - 7}\b"):
            compare_files(*pair, difference=copies.first_difference)

    @pytest.mark.parametrize("side", [0, 1])
    def test_a_file_that_gives_place_to_another(
        self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path], side: int
    ) -> None:
        content = bytearray((pair[0] / NAME).read_bytes())
        self.write(copies, pair, bytes(content))
        content[5] ^= 1
        (pair[side] / "other").write_bytes(content)
        (pair[side] / "other").replace(pair[side] / NAME)
        with pytest.raises(VerificationError, match=r"found a difference at byte 5\b"):
            compare_files(*pair, difference=copies.first_difference)

    def test_a_copy_that_is_written_to_afterwards(
        self, copies: CopiesBeingWritten, pair: tuple[Path, Path], read: list[Path]
    ) -> None:
        copy = self.write(copies, pair, (pair[0] / NAME).read_bytes())
        assert copies.first_difference(pair[0] / NAME, copy) is None
        assert not read
        # The clock of a file system may be coarse.
        time.sleep(0.05)
        with copy.open("r+b") as file:
            file.write(bytes([(pair[0] / NAME).read_bytes()[0] ^ 1]))
        assert copies.first_difference(pair[0] / NAME, copy) == 0
