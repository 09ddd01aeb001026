from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from graphfreeze.errors import ArtifactReadError
from graphfreeze.selection import FreezePlan, load_plan, save_plan
from tests.selection.table_source import TableSource, plan_of

DTYPES: list[Any] = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64, np.complex128, np.int8]
DTYPES += [np.uint64, np.bool_]


def plan(*selections: str) -> FreezePlan:
    values = {f"layer_{number}/x": np.arange(6).reshape(2, 3).astype(dtype) for number, dtype in enumerate(DTYPES)}
    source = TableSource(values | {"scalar": np.array(-0.0, np.float32), "tall": np.ones((3, 2), np.float32).T})
    exact = [f"freeze {name}[0]" for name in source_names(source)]
    return plan_of(source, *(selections or [*exact, "freeze scalar", "freeze tall"]), only_in=["serve"])


def source_names(source: TableSource) -> list[str]:
    return [variable.name for variable in source.variables if variable.shape == (2, 3)]


def test_a_plan_comes_back_bit_by_bit(tmp_path: Path) -> None:
    saved = plan()
    save_plan(saved, tmp_path)
    loaded = load_plan(tmp_path)
    assert loaded.only_in == saved.only_in == ("serve",)
    assert len(loaded.variables) == len(DTYPES) + 2
    for before, after in zip(saved.variables, loaded.variables, strict=True):
        assert (after.variable, after.form, after.selectors) == (before.variable, before.form, before.selectors)
        assert (after.mask.dtype, after.mask.shape) == (before.mask.dtype, before.mask.shape)
        assert (after.value.dtype, after.value.shape) == (before.value.dtype, before.value.shape)
        assert after.mask.tobytes() == before.mask.tobytes()
        assert after.value.tobytes() == before.value.tobytes()


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.complex64])
def test_scalars_of_every_storage_come_back(tmp_path: Path, dtype: Any) -> None:
    value = np.array(1.5, dtype)
    save_plan(plan_of(TableSource({"x": value}), "freeze x"), tmp_path)
    loaded = load_plan(tmp_path).variables[0].value
    assert isinstance(loaded, np.ndarray)
    assert (loaded.dtype, loaded.shape, loaded.tobytes()) == (value.dtype, (), value.tobytes())


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_plan(plan(), tmp_path / name)
    for file in ("plan.json", "masks.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_the_files_hold(tmp_path: Path) -> None:
    save_plan(plan_of(TableSource({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}), "freeze x[:, 1]"), tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text()) == {
        "schema_version": 1,
        "only_in": [],
        "variables": [
            {
                "name": "x",
                "object_path": "variables/0",
                "shape": [2, 3],
                "dtype": "float32",
                "trainable": True,
                "form": "blend",
                "elements": 6,
                "frozen_elements": 2,
                "selectors": ["freeze x[:, 1]"],
            }
        ],
    }
    tensors = load_file(tmp_path / "masks.safetensors")
    assert sorted(tensors) == ["mask/variables/0", "value/variables/0"]
    assert tensors["mask/variables/0"].tolist() == [[True, False, True]]
    assert tensors["value/variables/0"].tolist() == [1, 4]


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactReadError, match=r"plan.json is missing: expected the freeze plan of a rewrite"):
        load_plan(tmp_path)
    save_plan(plan(), tmp_path)
    (tmp_path / "masks.safetensors").unlink()
    with pytest.raises(ArtifactReadError, match=r"masks.safetensors is missing"):
        load_plan(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_corrupt_plan(tmp_path: Path, content: bytes) -> None:
    save_plan(plan(), tmp_path)
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(ArtifactReadError, match=r"plan.json is not readable JSON"):
        load_plan(tmp_path)


def test_truncated_masks(tmp_path: Path) -> None:
    save_plan(plan(), tmp_path)
    path = tmp_path / "masks.safetensors"
    whole = path.read_bytes()
    for length in (0, 5, 50, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactReadError, match=r"masks.safetensors is not a readable safetensors file"):
            load_plan(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "has schema_version 2, this version of graphfreeze reads 1"),
        ({"variables": 3}, "is not a freeze plan"),
        ({"variables": [{}]}, "is not a freeze plan"),
        ({"variables": [3]}, "is not a freeze plan"),
        ({"variables": []}, "disagree on"),
        ({"only_in": None}, "is not a freeze plan"),
        ({"only_in": [3]}, r"is not a freeze plan: .*only_in should be a list of strings, found '\[3\]'"),
        ({"tags": "serve"}, "tags should be a list of strings"),
    ],
)
def test_a_plan_that_is_none(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_plan(plan(), tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactReadError, match=message):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [3, 2], "does not fit its shape"),
        ("shape", [6], "does not fit its shape"),
        ("dtype", "float64", "is stored as float32, expected float64"),
        ("dtype", "nonsense", "is not a freeze plan"),
        ("shape", [float("nan"), 3], r"shape should be a list of sizes, found '\[nan, 3\]'"),
        ("shape", [2**62, 3], "shape should be a list of sizes"),
        ("shape", [-2, -3], "shape should be a list of sizes"),
        ("shape", 6, "shape should be a list of sizes"),
        ("name", 3, "name should be a string"),
        ("trainable", 1, "trainable should be true or false"),
        ("frozen_elements", 2.0, "frozen_elements should be a number of elements"),
        ("selectors", "freeze x", "selectors should be a list of strings"),
        ("form", "auto", "form 'auto'"),
        ("frozen_elements", 5, "counts 5 of 6 elements of 'x' frozen, the mask 2 of 6"),
        ("elements", 7, "counts 2 of 7"),
        ("object_path", "variables/1", "is not a freeze plan"),
    ],
)
def test_files_that_disagree(tmp_path: Path, key: str, value: object, message: str) -> None:
    save_plan(plan_of(TableSource({"x": np.ones((2, 3), np.float32)}), "freeze x[:, 1]"), tmp_path)
    path = tmp_path / "plan.json"
    document = json.loads(path.read_text())
    document["variables"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactReadError, match=message):
        load_plan(tmp_path)


@pytest.mark.parametrize("kind", ["mask", "value"])
@pytest.mark.parametrize("elements", [6, 1 << 19])
def test_bytes_that_are_no_bools(tmp_path: Path, kind: str, elements: int) -> None:
    source = TableSource({"switch": np.ones((2, elements // 2), np.bool_)})
    save_plan(plan_of(source, "freeze switch[0]", "train switch[0, 0]"), tmp_path)
    path = tmp_path / "masks.safetensors"
    tensors = load_file(path)
    (key,) = (name for name in tensors if name.startswith(kind))
    tensors[key].reshape(-1).view(np.uint8)[-1] = 3
    save_file(tensors, path)
    message = (
        rf"masks\.safetensors: the {kind} of 'switch' holds the byte 3, expected bools, each a byte that is 0 or 1"
    )
    with pytest.raises(ArtifactReadError, match=message):
        _ = load_plan(tmp_path).variables[0].value  # of a large plan, values are read when they are needed


def test_masks_that_nobody_asked_for(tmp_path: Path) -> None:
    save_plan(plan_of(TableSource({"x": np.ones(2, np.float32)}), "freeze x"), tmp_path)
    path = tmp_path / "masks.safetensors"
    save_file({key: value.copy() for key, value in load_file(path).items()} | {"mask/other": np.ones(1, bool)}, path)
    with pytest.raises(ArtifactReadError, match=r"disagree on \['mask/other'\]"):
        load_plan(tmp_path)
