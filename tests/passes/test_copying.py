"""Copies are whole, whoever makes them, and nothing stays behind."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

import pytest

from graphfreeze.passes import copying
from graphfreeze.passes.copying import CopiesAhead, copy_file, link_or_copy

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(copying, "_STRETCH", 1000)
    monkeypatch.setattr(copying, "_WORTHWHILE", 100)
    paths = [tmp_path / name for name in ("a", "b", "small", "empty")]
    for path, content in zip(paths, (CONTENT, CONTENT[::-1], b"xyz", b""), strict=True):
        path.write_bytes(content)
    return paths


def test_in_the_kernel_and_elsewhere(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    def stop_early(*_: object) -> int:
        return 0

    ways = [None, refuse, stop_early]
    for way in ways:
        if way is not None:
            monkeypatch.setattr(os, "copy_file_range", way)
        for file in files:
            copy_file(str(file), str(tmp_path / "copy"))
            assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    monkeypatch.delattr(os, "copy_file_range")
    copy_file(str(files[0]), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_link_where_there_can_be_one(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "symbolic").symlink_to(files[0])
    link_or_copy(str(tmp_path / "symbolic"), str(tmp_path / "linked"))
    assert (tmp_path / "linked").samefile(files[0])

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(str(tmp_path / "symbolic"), str(tmp_path / "copied"))
    assert not (tmp_path / "copied").samefile(files[0])
    assert (tmp_path / "copied").read_bytes() == CONTENT


def test_copies_that_are_taken(files: list[Path], tmp_path: Path) -> None:
    with CopiesAhead(files[:3], tmp_path / "ahead") as copies:
        for file in files:
            copies.take(str(file), str(tmp_path / f"{file.name}.copy"))
        # A copy is moved away once; asked for again, it is made again.
        copies.take(str(files[0]), str(tmp_path / "again"))
    for file in files:
        assert (tmp_path / f"{file.name}.copy").read_bytes() == file.read_bytes()
    assert (tmp_path / "again").read_bytes() == CONTENT
    assert not (tmp_path / "ahead").exists()


def test_how_far_a_copy_is(files: list[Path], tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []

    def written(source: str, copy: str, end: int) -> None:
        assert Path(copy).read_bytes() == Path(source).read_bytes()[:end]
        told.append((Path(source).name, end))

    with CopiesAhead(files[:2], tmp_path / "ahead", written) as copies:
        for file in files[:2]:
            copies.take(str(file), str(tmp_path / f"{file.name}.copy"))
    ends = [*range(1000, len(CONTENT), 1000), len(CONTENT)]
    assert told == [(name, end) for name in ("a", "b") for end in ends]


def test_copies_that_nothing_takes(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(KeyError), CopiesAhead(files, tmp_path / "ahead"):
        raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "empty", "small"]


def test_small_files_are_not_copied_ahead(files: list[Path], tmp_path: Path) -> None:
    with CopiesAhead(files[2:], tmp_path / "ahead"):
        assert not (tmp_path / "ahead").exists()


def test_a_copy_that_is_given_up(files: list[Path], tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    copy_file(str(files[0]), str(tmp_path / "copy"), stop)
    assert (tmp_path / "copy").read_bytes() == b""


def test_what_goes_wrong_is_told_when_the_copy_is_taken(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(copying, "copy_file", full)
    with CopiesAhead(files[:1], tmp_path / "ahead") as copies, pytest.raises(OSError, match="No space left"):
        copies.take(str(files[0]), str(tmp_path / "copy"))
