"""Frozen values that stay in the checkpoint: nothing is copied, and nothing else is taken for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

import graphfreeze
from graphfreeze.passes import storage
from graphfreeze.savedmodel.checkpoint_index import CheckpointIndex, read_index
from graphfreeze.savedmodel.checkpoint_index_writer import write_index
from graphfreeze.selection import plan_files, resolve

from .conftest import Rewritten

SELECTIONS = [
    graphfreeze.Selection("freeze", text)
    for text in ("net/hidden/kernel[:, 1:]", "net/out/kernel where w > 0", "net/head/kernel[0] := 2")
]


def rewrite(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(storage.Storage, "__init__", lambda self: self.__dict__.update(total=0, each=0))
        patch.setattr(resolve, "_KEPT_BYTES", 0)
        graphfreeze.rewrite(source, target, SELECTIONS, onnx=False, form="select", **options)  # type: ignore[arg-type]


@pytest.fixture
def out(rewritten: Rewritten, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(plan_files, "_KEPT_BYTES", 0)
    rewrite(rewritten.original, tmp_path / "out", monkeypatch)
    return tmp_path / "out"


def entries(directory: Path) -> tuple[str, CheckpointIndex]:
    prefix = str(directory / "variables" / "variables")
    return prefix, read_index(prefix)


def test_what_is_frozen_at_its_value_is_not_copied(out: Path) -> None:
    described = {v["name"]: v for v in json.loads((out / "plan" / "plan.json").read_text())["variables"]}
    kept = {name for name, variable in described.items() if "checkpoint_crc32c" in variable}
    assert kept == {"net/hidden/kernel", "net/out/kernel"}
    held = {name for name in load_file(out / "plan" / "masks.safetensors") if name.startswith("value/")}
    assert held == {f"value/{described['net/head/kernel']['object_path']}"}
    _, index = entries(out / "saved_model")
    places = [(entry.shard_id, entry.offset) for entry in index.entries.values()]
    assert len(places) - len(set(places)) == len(kept)


def test_it_is_proven_and_folds_back(rewritten: Rewritten, out: Path, tmp_path: Path) -> None:
    assert graphfreeze.verify(rewritten.original, out)["passed"]
    loaded = tf.saved_model.load(str(out / "saved_model"))
    for variable in loaded.trainable_variables:
        variable.assign(variable * 0.5 + 0.25)
    expected = loaded.serve(rewritten.x).numpy()
    state = tf.train.Checkpoint(loaded).write(str(tmp_path / "ckpt"))
    graphfreeze.fold(out, tmp_path / "deploy", state=state)
    folded = tf.saved_model.load(str(tmp_path / "deploy"))
    assert folded.serve(rewritten.x).numpy().tobytes() == expected.tobytes()


def test_another_state_in_the_place_of_the_checkpoint_is_not_folded(
    rewritten: Rewritten, out: Path, tmp_path: Path
) -> None:
    loaded = tf.saved_model.load(str(out / "saved_model"))
    state = tf.train.Checkpoint(loaded).write(str(tmp_path / "ckpt"))
    for variable in loaded.variables:
        variable.assign(variable * 0.5 + 0.25)
    tf.saved_model.save(loaded, str(tmp_path / "again"), signatures=loaded.signatures)
    shutil.rmtree(out / "saved_model" / "variables")
    shutil.copytree(tmp_path / "again" / "variables", out / "saved_model" / "variables")
    with pytest.raises(graphfreeze.FileError, match="saved over the checkpoint"):
        graphfreeze.fold(out, tmp_path / "deploy", state=state)
    assert not (tmp_path / "deploy").exists()


def change_plan(original: Path, out: Path) -> None:
    file = out / "plan" / "plan.json"
    document = json.loads(file.read_text())
    next(v for v in document["variables"] if "checkpoint_crc32c" in v)["checkpoint_crc32c"] ^= 1
    file.write_text(json.dumps(document))


def change_original(original: Path, out: Path) -> None:
    _, index = entries(original)
    shard = original / "variables" / "variables.data-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[next(e for key, e in sorted(index.entries.items()) if b"variables/0" in key).offset] ^= 1
    shard.write_bytes(content)


def change_copy(original: Path, out: Path) -> None:
    _, index = entries(out / "saved_model")
    shard = min((out / "saved_model" / "variables").glob("*data*"))
    content = bytearray(shard.read_bytes())
    content[next(e for key, e in sorted(index.entries.items()) if b"graphfreeze/frozen" in key).offset] ^= 1
    shard.write_bytes(content)


def freeze_at_another_place(original: Path, out: Path) -> None:
    """The values lie where another variable of the same shape could: as many bytes, shifted by one number."""
    prefix, index = entries(out / "saved_model")
    own = {(e.shard_id, e.offset): key for key, e in sorted(index.entries.items()) if b"graphfreeze" not in key}
    key = next(
        key
        for key, e in sorted(index.entries.items())
        if b"graphfreeze/frozen" in key and (e.shard_id, e.offset) in own
    )
    index.entries[key].offset += 4 if index.entries[key].offset == 0 else -4
    write_index(index, prefix)


def change_mask(original: Path, out: Path) -> None:
    prefix, index = entries(out / "saved_model")
    entry = max(
        (e for key, e in sorted(index.entries.items()) if b"graphfreeze/mask" in key), key=lambda entry: int(entry.size)
    )
    shard = Path(f"{prefix}.data-{entry.shard_id:05}-of-{index.header.num_shards:05}")
    content = bytearray(shard.read_bytes())
    content[entry.offset] ^= 1
    shard.write_bytes(content)


DAMAGES = [change_plan, change_original, change_copy, freeze_at_another_place, change_mask]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(rewritten: Rewritten, out: Path, tmp_path: Path, damage: Callable[[Path, Path], None]) -> None:
    original = tmp_path / "original"
    shutil.copytree(rewritten.original, original)
    damage(original, out)
    with pytest.raises(graphfreeze.VerificationError):
        graphfreeze.verify(original, out)


def test_values_are_compared_where_the_objects_of_the_checkpoint_have_other_names(
    rewritten: Rewritten, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graphfreeze.prover import own_bytes

    monkeypatch.setattr(own_bytes, "objects_at", lambda *_: set())
    assert graphfreeze.verify(rewritten.original, out)["passed"]
    freeze_at_another_place(rewritten.original, out)
    with pytest.raises(graphfreeze.VerificationError, match="frozen values"):
        graphfreeze.verify(rewritten.original, out)


def test_a_wrong_checksum_leaves_nothing(rewritten: Rewritten, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tmp_path / "original"
    shutil.copytree(rewritten.original, original)
    (path,) = (v["object_path"] for v in graphfreeze.inspect(original)["variables"] if v["name"] == "net/hidden/kernel")
    _, index = entries(original)
    shard = original / "variables" / "variables.data-00000-of-00001"
    content = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    content[index.entries[f"{path}/.ATTRIBUTES/VARIABLE_VALUE".encode()].offset] ^= 1
    shard.write_bytes(content.tobytes())
    with pytest.raises(graphfreeze.FileError, match="is corrupt: the value of net/hidden/kernel has the checksum"):
        rewrite(original, tmp_path / "out", monkeypatch, checks="static")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["original"]
