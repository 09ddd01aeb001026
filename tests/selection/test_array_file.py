from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from graphfreeze.errors import SelectorError
from tests.selection.table_source import TableSource, frozen_positions, only, plan_of

MASK = np.array([[True, False, False], [False, False, True]])


def source() -> TableSource:
    return TableSource({"x": np.ones((2, 3), np.float32)})


def mask_positions(directory: Path, reference: str) -> list[tuple[int, ...]]:
    return frozen_positions(only(plan_of(source(), f"freeze x @ {reference}", base_directory=directory)))


@pytest.mark.parametrize("mask", [MASK, MASK.astype(np.int64), MASK.astype(np.uint8), np.asfortranarray(MASK)])
def test_masks_from_npy(tmp_path: Path, mask: np.ndarray) -> None:
    np.save(tmp_path / "mask.npy", mask)
    assert mask_positions(tmp_path, "mask.npy") == [(0, 0), (1, 2)]
    assert mask_positions(Path("/nonexistent"), str(tmp_path / "mask.npy")) == [(0, 0), (1, 2)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_masks_from_npz(tmp_path: Path, save: object) -> None:
    assert callable(save)
    save(tmp_path / "masks.npz", **{"x": MASK, "dense/kernel": ~MASK})
    assert mask_positions(tmp_path, "masks.npz[x]") == [(0, 0), (1, 2)]
    assert len(mask_positions(tmp_path, "masks.npz[dense/kernel]")) == 4
    with pytest.raises(SelectorError, match=r"masks.npz has no array 'kernel'; the nearest: dense/kernel"):
        mask_positions(tmp_path, "masks.npz[kernel]")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (MASK.T, r" has shape \(3, 2\), the variable has shape \(2, 3\): they must be equal"),
        (MASK[0], r" has shape \(3,\)"),
        (MASK.astype(np.float32), "must hold bool, or the integers 0 and 1; found float32"),
        (MASK.astype(np.int8) * 2, "must hold bool, or the integers 0 and 1"),
        (
            (MASK.astype(np.int8) * 2).view(np.bool_),
            r"mask.* holds the byte 2, expected bools, each a byte that is 0 or 1",
        ),
        (MASK.astype(object), "holds Python objects .a pickle., which are never loaded"),
        (np.zeros((2, 3), bool), "selects no element"),
    ],
)
def test_wrong_masks_are_explained(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "mask.npy", array, allow_pickle=True)
    np.savez(tmp_path / "masks.npz", mask=array)
    for reference in ("mask.npy", "masks.npz[mask]"):
        with pytest.raises(SelectorError, match=message):
            mask_positions(tmp_path, reference)


class Exploding:
    """Unpickling it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (self.target, "unpickled")


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    target = tmp_path / "unpickled"
    array = np.empty((2, 3), object)
    array[:] = Exploding(target)
    np.save(tmp_path / "mask.npy", array, allow_pickle=True)
    (tmp_path / "raw.npy").write_bytes(array.dumps())
    for name in ("mask.npy", "raw.npy"):
        with pytest.raises(SelectorError):
            mask_positions(tmp_path, name)
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not an array", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00\x02\x00{}", b"PK\x03\x04"],
)
def test_files_that_are_none(tmp_path: Path, content: bytes) -> None:
    for name in ("mask.npy", "masks.npz"):
        (tmp_path / name).write_bytes(content)
    for reference in ("mask.npy", "masks.npz[x]"):
        with pytest.raises(SelectorError, match=r"is not a readable|is not an array of numbers"):
            mask_positions(tmp_path, reference)


def test_truncated_files(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", MASK)
    whole = (tmp_path / "mask.npy").read_bytes()
    np.savez_compressed(tmp_path / "masks.npz", x=MASK)
    archive = (tmp_path / "masks.npz").read_bytes()
    for content, name, reference in ((whole, "mask.npy", "mask.npy"), (archive, "masks.npz", "masks.npz[x]")):
        for length in range(0, len(content) - 1, 7):
            (tmp_path / name).write_bytes(content[:length])
            with pytest.raises(SelectorError, match="is not a readable"):
                mask_positions(tmp_path, reference)


def test_a_header_that_lies_allocates_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "masks.npz", "w") as archive, archive.open("x.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|b1", "fortran_order": False, "shape": (10**15,)})
    with pytest.raises(SelectorError, match="has shape"):
        mask_positions(tmp_path, "masks.npz[x]")


@pytest.mark.parametrize("reference", ["missing.npy", "missing.npz[x]", "a\0b.npy", "folder.npy"])
def test_missing_files(tmp_path: Path, reference: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(SelectorError, match=r"there is no file|is not a readable"):
        mask_positions(tmp_path, reference)
